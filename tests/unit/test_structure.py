"""What is made of a batch is the batch, whatever classes its containers are of, and nobody else's."""

from __future__ import annotations

import array
import copy
import dataclasses
import enum
import math
import random
import sys
import threading
import types
import weakref
from collections import ChainMap, Counter, OrderedDict, UserDict, UserList, defaultdict, deque, namedtuple

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from edldist.errors import InputError
from edldist.student.memory import containers
from edldist.student.memory.containers import copied, taken_over
from edldist.student.memory.structure import mapped

Pair = namedtuple("Pair", "first second")


class Adding(dict):
    def __setitem__(self, key, value):
        super().__setitem__(key, [*self.get(key, []), value])

    def update(self, *args, **kwargs):
        raise AssertionError("called")

    def items(self):
        raise AssertionError("called")


class Lower(OrderedDict):
    def __setitem__(self, key, value):
        super().__setitem__(key.lower(), value)


class Twice(list):
    def append(self, item):
        raise AssertionError("called")

    def extend(self, items):
        raise AssertionError("called")


class Limited(deque):
    def extend(self, items):
        raise AssertionError("called")


class Own:
    def __init__(self, held):
        self.held = held

    def __eq__(self, other):
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None


class Base:
    __slots__ = ("held",)


class Slotted(Base):
    __slots__ = ("__dict__", "more")

    def __init__(self, held):
        self.held = self.more = held

    def __eq__(self, other):
        return type(self) is type(other) and self.held == other.held and self.more == other.more

    __hash__ = None


class Guarded(Own):
    def __setattr__(self, name, value):
        if hasattr(self, "held"):
            raise TypeError("frozen")
        super().__setattr__(name, value)

    def __getattr__(self, name):
        raise AttributeError(name)


class Asked(Own):
    def __deepcopy__(self, memo):
        return type(self)(copy.deepcopy(self.held, memo))


class Pickled(Own):
    def __getstate__(self):
        raise AssertionError("called")


@dataclasses.dataclass
class Sample:
    held: object


@dataclasses.dataclass(slots=True)
class SlottedSample:
    held: object


class Named(UserDict):
    def __setitem__(self, key, value):
        if key in self.data:
            raise AssertionError("called")
        super().__setitem__(key, value)


def adding(item):
    made = Adding()
    dict.__setitem__(made, "a", item)
    made.note = [item]
    return made


def objects(item):
    made = np.empty(2, object)
    made[0], made[1] = item, "text"
    return made


def twice(item):
    made = Twice()
    list.append(made, item)
    return made


KINDS = {
    "dict": lambda item: {"a": item, (1, "b"): 3},
    "counting": lambda item: Counter(a=item),
    "adding": adding,
    "lower": lambda item: Lower(a=item),
    "defaultdict": lambda item: defaultdict(list, a=item),
    "ordered": lambda item: OrderedDict(b=1, a=item),
    "user dict": lambda item: Named({"a": item}),
    "user list": lambda item: UserList([item]),
    "chain": lambda item: ChainMap({"a": item}, {"b": 3}),
    "proxy": lambda item: types.MappingProxyType({"a": item}),
    "list": lambda item: [item, 3],
    "twice": twice,
    "tuple": lambda item: (item, None),
    "named tuple": lambda item: Pair(item, 3),
    "deque": lambda item: deque([1, item], maxlen=2),
    "limited": lambda item: Limited([item]),
    "namespace": lambda item: types.SimpleNamespace(held=item),
    "own": Own,
    "slotted": Slotted,
    "guarded": Guarded,
    "asked": Asked,
    "pickled": Pickled,
    "data class": Sample,
    "slotted data class": SlottedSample,
    "objects": objects,
}
GROUND = {
    "number": (lambda: [1], lambda held: held.__setitem__(0, 2)),
    "texts": (lambda: ["a"] * 40, lambda held: held.__setitem__(7, "b")),
    "set": (lambda: {1, 2}, lambda held: held.add(3)),
    "bytes": (lambda: bytearray(b"ab"), lambda held: held.extend(b"c")),
    "numbers": (lambda: array.array("i", [1, 2]), lambda held: held.append(3)),
    "memory": (lambda: memoryview(bytearray(8)).cast("i"), lambda held: held.__setitem__(0, 3)),
}


def same(one, other) -> bool:
    """Whether two are alike, with the types of all containers."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return all(map(same, one.ravel(), other.ravel()))
    if isinstance(one, dict):
        alike = list(dict.keys(one)) == list(dict.keys(other))
        return alike and all(map(same, dict.values(one), dict.values(other))) and state_alike(one, other)
    if isinstance(one, list):
        return all(map(same, list.__iter__(one), list.__iter__(other))) and len(one) == len(other)
    if isinstance(one, (tuple, deque)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, (ChainMap, types.MappingProxyType)):
        return same(dict(one), dict(other))
    if isinstance(one, (UserDict, UserList)):
        return same(one.data, other.data) and state_alike(one, other)
    if hasattr(one, "held"):
        return same(one.held, other.held)
    return one == other and state_alike(one, other)


def state_alike(one, other) -> bool:
    return same(*(list(getattr(part, "__dict__", {}).items()) for part in (one, other)))


def built(names, value):
    """A value in containers of these kinds, the first of them innermost."""
    for name in names:
        value = KINDS[name](value)
    return value


@pytest.mark.parametrize("ground", GROUND)
@pytest.mark.parametrize("make", [lambda batch: taken_over(batch).batch, copied], ids=["taken", "copied"])
def test_what_is_made_of_any_containers_is_alike_and_stays_what_it_was(ground, make):
    draw, (start, refill) = random.Random(ground), GROUND[ground]
    alone = [[name] for name in KINDS]
    for names in [*alone, *(draw.choices(list(KINDS), k=draw.randint(2, 4)) for _ in range(200))]:
        held = start()
        batch = built(names, held)
        made = make(batch)
        assert same(made, batch), names
        refill(held)
        assert not same(made, batch) and same(made, built(names, start())), names


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_and_arrays_are_shared_and_known_or_copied(kind):
    for part in (torch.zeros(3), np.zeros(3)):
        batch = {"x": KINDS[kind]([part])}
        taken = taken_over(batch)
        known = {id(leaf) for leaf in (*containers.leaves(taken.batch), *taken.hidden)}
        assert id(part) in known and not taken.left
        made = copied(batch)
        part += 1
        assert same_numbers(made, 0) and same_numbers(taken.batch, 1)


def same_numbers(batch, number) -> bool:
    """Whether the only array or tensor that hangs on it is of one number."""
    (found,) = {id(part): part for part in containers._reached(batch)}.values() or [None]
    return bool((np.asarray(found) == number).all())


# --- one thing in several places ----------------------------------------------------------------------

MAKERS = {
    "taken": lambda batch: taken_over(batch).batch,
    "copied": copied,
    "mapped": lambda batch: mapped(batch, torch.clone),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_what_is_one_thing_stays_one_and_what_contains_itself_does(make):
    tensor, held = torch.zeros(3), [1]
    batch = {"x": tensor, "y": tensor, "l": held, "m": (held,)}
    batch["self"] = ([batch],)
    made = make(batch)
    assert made["x"] is made["y"] and made["l"] is made["m"][0] is not held
    assert made["self"][0][0] is made is not batch


def test_objects_that_know_each_other_do_so_among_those_that_are_made():
    parent, child = Own(None), Own(None)
    parent.held, child.held = [child], weakref.ref(parent)
    parent.call = parent.__eq__
    child.table = {Slot: parent}
    for make in (MAKERS["taken"], copied):
        made = make([parent, child])
        assert made[0] is not parent and made[0].held[0] is made[1] is not child
        assert made[1].held() is made[0] is made[0].call.__self__ and made[1].table[Slot] is made[0]


class Slot:
    pass


class Mode(enum.Enum):
    TRAIN = [1]


MISSING = Slot()


@pytest.mark.parametrize(
    "value",
    [Mode.TRAIN, MISSING, object(), Slot, len, torch.float32, threading.Lock(), torch.nn.Linear(1, 1), math],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("make", [MAKERS["taken"], copied], ids=["taken", "copied"])
def test_what_is_the_only_one_of_its_kind_stays(value, make):
    made = make({"a": value, "b": Own(value)})
    assert made["a"] is value and made["b"].held is value


def test_what_is_ended_once_is_not_made_twice():
    class Handle:
        def __init__(self):
            self.ended = []

        def __del__(self):
            self.ended.append(1)

    handle = Handle()
    assert taken_over([handle]).batch[0] is handle
    assert not handle.ended


def test_an_object_on_which_too_much_hangs_is_left_and_said_once(caplog):
    class Data:
        def __init__(self):
            self.samples = [[number] for number in range(containers.ROOM)]

    data, tensor = Data(), torch.zeros(2)
    first, second = Own([data]), Own([tensor])
    for _ in range(3):
        taken = taken_over([first, second, data.samples])
        assert taken.batch[0] is first and taken.batch[1] is not second
        assert taken.batch[2] == data.samples and taken.batch[2] is not data.samples
    assert len(caplog.messages) == 1 and "a Own in the batch hang more than" in caplog.messages[0]


def test_tables_and_matrices_of_others_are_the_batchs_own():
    table, matrix = pd.DataFrame({"a": [0, 0]}), scipy.sparse.csr_matrix(np.eye(3))
    for make in (MAKERS["taken"], copied):
        made = make({"t": table.copy(), "deep": [Own(table)]})
        table.loc[0, "a"] += 5
        assert type(made["t"]) is pd.DataFrame and made["deep"][0].held.loc[0, "a"] == table.loc[0, "a"] - 5
    taken, made = taken_over([matrix]), copied([matrix])
    assert any(part is matrix.data for part in taken.hidden)
    matrix.data[:] = 7
    assert (made[0].toarray() == np.eye(3)).all() and type(made[0]) is type(matrix)


@pytest.mark.parametrize("layout", [{}, {"order": "F"}])
def test_an_array_keeps_the_order_of_its_numbers(layout):
    array_ = np.zeros((3, 4), **layout)
    assert copied([array_])[0].strides == array_.strides


# --- what cannot be copied ----------------------------------------------------------------------------


def deep(levels: int):
    held: list = []
    for _ in range(levels):
        held = [held]
    return held


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ((n for n in range(3)), "a generator in one cannot be copied.*leave it out of the batch"),
        (deep(30_000), "a dict of the data loader is nested too deep"),
    ],
    ids=["generator", "deep"],
)
def test_what_cannot_be_copied_is_refused_with_what_to_do_and_else_passed_on(value, says):
    with pytest.raises(InputError, match=f"copy_batches=True copies all.*{says}"):
        copied({"odd": value})
    assert taken_over({"odd": value}).batch["odd"] is value


@pytest.mark.filterwarnings("ignore")
def test_tensors_that_torch_does_not_clone_are_copied():
    given = torch.quantize_per_channel(torch.ones(2, 4), torch.ones(2), torch.zeros(2), 0, torch.qint8)
    made = copied([given, given])
    assert made[0] is made[1] is not given and made[0].data_ptr() != given.data_ptr()
    assert torch.equal(made[0].dequantize(), given.dequantize())


@pytest.mark.parametrize("format_", ["B", "b", "f"])
def test_views_of_memory_are_the_batchs_own(format_):
    memory = memoryview(bytearray(8)).cast(format_)
    for make in (MAKERS["taken"], copied):
        made = make([memory])[0]
        assert made == memory and made.format == format_ and not made.readonly
        memory[0] = memory[0] + 1
        assert made != memory


def test_a_small_object_costs_a_few_calls():
    batch = Slotted([1, "text"])
    batch.x = torch.zeros(2)
    taken_over(batch)  # what is learnt of its class is known from then on
    calls: Counter[str] = Counter()
    sys.setprofile(lambda frame, event, arg: calls.update([event]))
    try:
        taken_over(batch)
    finally:
        sys.setprofile(None)
    assert 0 < calls["call"] + calls["c_call"] < 150  # 85
