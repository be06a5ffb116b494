"""What is read of a batch stays in it whatever its data loader does to the containers."""

from __future__ import annotations

import array
import dataclasses
from collections import OrderedDict, UserDict, UserList, defaultdict, namedtuple
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from edldist.student.memory.containers import taken_over

Pair = namedtuple("Pair", "image label")


@dataclasses.dataclass
class Sample:
    x: object


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: object


class Encoding(UserDict):
    def __init__(self, data=None, about="text"):
        super().__init__(data)
        self.about = about


class Own(Mapping):
    """One that nobody knows how to make another of."""

    def __init__(self, **items):
        self.items_of = items

    def __getitem__(self, key):
        return self.items_of[key]

    def __iter__(self):
        return iter(self.items_of)

    def __len__(self):
        return len(self.items_of)


OLD, NEW = torch.zeros(2), torch.ones(2)


@pytest.mark.parametrize(
    ("batch", "refill", "read"),
    [
        ({"x": OLD}, lambda b: b.update(x=NEW), lambda b: b["x"]),
        ([OLD], lambda b: b.__setitem__(0, NEW), lambda b: b[0]),
        (([OLD],), lambda b: b[0].__setitem__(0, NEW), lambda b: b[0][0]),
        ({"a": [{"b": OLD}]}, lambda b: b["a"][0].update(b=NEW), lambda b: b["a"][0]["b"]),
        (Pair([OLD], 3), lambda b: b.image.clear(), lambda b: b.image[0]),
        (Sample(OLD), lambda b: setattr(b, "x", NEW), lambda b: b.x),
        (Frozen([OLD]), lambda b: b.x.clear(), lambda b: b.x[0]),
        (OrderedDict(x=OLD), lambda b: b.update(x=NEW), lambda b: b["x"]),
        (defaultdict(list, x=OLD), lambda b: b.update(x=NEW), lambda b: b["x"]),
        (Encoding({"x": OLD}), lambda b: b.update(x=NEW), lambda b: b["x"]),
    ],
)
def test_a_container_that_is_filled_again_changes_no_batch_that_was_read(batch, refill, read):
    taken = taken_over(batch)
    refill(batch)
    assert type(taken.batch) is type(batch)
    assert read(taken.batch) is OLD and not taken.left


@pytest.mark.parametrize(
    ("batch", "refill", "expected"),
    [
        ([1, 2], lambda b: b.append(3), [1, 2]),
        (list(range(99)), lambda b: b.reverse(), list(range(99))),
        ({"name": ["a", "b"]}, lambda b: b["name"].clear(), {"name": ["a", "b"]}),
        (bytearray(b"ab"), lambda b: b.extend(b"c"), bytearray(b"ab")),
        ({1, 2}, lambda b: b.clear(), {1, 2}),
        (array.array("i", [1, 2]), lambda b: b.append(3), array.array("i", [1, 2])),
    ],
)
def test_numbers_and_texts_stay_what_they_were(batch, refill, expected):
    taken = taken_over(batch)
    refill(batch)
    assert taken.batch == expected


def test_an_array_of_objects_is_one_of_its_own():
    objects = np.array(["a", None], dtype=object)
    taken = taken_over({"names": objects})
    objects[0] = "b"
    assert taken.batch["names"].tolist() == ["a", None]


def test_what_cannot_change_and_what_else_a_container_carries_stays():
    packed = pack_sequence([torch.zeros(3), torch.zeros(2)])
    encoding = Encoding({"x": 1}, about="this")
    made = taken_over((packed, encoding, torch.Size([2, 3]), np.float32(3), "text", None)).batch
    assert type(made[0]) is type(packed) and made[0].data is packed.data
    assert made[0].batch_sizes is packed.batch_sizes
    assert made[1].about == "this" and made[2:] == (torch.Size([2, 3]), np.float32(3), "text", None)


class OwnList(UserList):
    pass


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


@pytest.mark.parametrize(
    ("batch", "refill", "read"),
    [
        (SimpleNamespace(x=OLD, n=3), lambda b: setattr(b, "x", NEW), lambda b: b.x),
        ({"odd": SimpleNamespace(x=[OLD])}, lambda b: b["odd"].x.clear(), lambda b: b["odd"].x[0]),
        (Own(x=OLD), lambda b: b.items_of.update(x=NEW), lambda b: b["x"]),
        (OwnList([OLD]), lambda b: b.clear(), lambda b: b[0]),
        (Slotted(OLD), lambda b: setattr(b, "x", NEW), lambda b: b.x),
        ([Slotted({"a": OLD})], lambda b: b[0].x.clear(), lambda b: b[0].x["a"]),
    ],
)
def test_an_object_that_is_filled_again_changes_no_batch_and_its_tensors_are_known(batch, refill, read):
    taken = taken_over(batch)
    refill(batch)
    assert type(taken.batch) is type(batch) and read(taken.batch) is OLD
    assert any(part is OLD for part in taken.hidden) and not taken.left


def test_an_object_with_state_of_its_own_stays_and_tells_that_it_was_filled_again():
    class Handle:
        def __del__(self):
            pass

    batch = {"handle": Handle(), "failed": ValueError("text"), "numbers": iter([1])}
    batch["handle"].x, batch["failed"].x = OLD, OLD
    taken = taken_over(batch)
    assert all(taken.batch[name] is batch[name] for name in batch)
    for left, name in zip(taken.left, ("handle",), strict=True):
        assert left.check() is None
        batch[name].x = NEW
        assert "filled with other tensors" in left.check()


def test_how_a_container_says_that_it_is_copied_does_not_matter():
    class Stubborn(dict):
        def __copy__(self):
            raise TypeError("there is one of me")

    batch = [Stubborn(x=OLD)]
    taken = taken_over(batch)
    batch[0]["x"] = NEW
    assert type(taken.batch[0]) is Stubborn and taken.batch[0]["x"] is OLD


def test_a_batch_that_contains_itself_does_so_in_what_is_made():
    batch: list = [OLD]
    batch.append(batch)
    made = taken_over(batch).batch
    assert made is not batch and made[1] is made and made[0] is OLD
