"""``edldist.collate`` makes the batches of ``default_collate``, in memory that is used again."""

from __future__ import annotations

import collections
import copy
import io
import os
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import default_collate

import edldist
from edldist.errors import ConfigError
from edldist.student.batch.held_bytes import held_bytes
from edldist.student.memory import collating
from edldist.student.memory.handed_over import HandedOver, in_workers_slab
from edldist.student.memory.ownership import unshared
from edldist.wire.shm.allowance import Allowance
from edldist.wire.shm.lending import lend
from edldist.wire.shm.slabs import SlabPool
from edldist.wire.shm.slots import of_this_process

LARGE = (3, 64, 64)


@pytest.fixture(autouse=True)
def no_memory_of_others() -> Iterator[None]:
    collating._forget()
    yield
    collating._forget()


def in_slot(tensor: Tensor) -> bool:
    return of_this_process.file_of(tensor.untyped_storage().data_ptr()) is not None


def alike(made: Any, wanted: Any) -> bool:
    if isinstance(wanted, Tensor):
        return type(made) is Tensor and made.dtype is wanted.dtype and torch.equal(made, wanted)
    if isinstance(wanted, dict):
        return type(made) is type(wanted) and all(alike(made[key], wanted[key]) for key in wanted)
    if isinstance(wanted, (list, tuple)):
        return type(made) is type(wanted) and all(map(alike, made, wanted))
    return made == wanted


Point = collections.namedtuple("Point", ["x", "y"])

_leaf = st.sampled_from(
    [
        lambda n: torch.full(LARGE, n % 100, dtype=torch.uint8),
        lambda n: torch.full(LARGE, float(n), dtype=torch.bfloat16).transpose(0, 2),
        lambda n: torch.full((100, 100), bool(n % 2)),
        lambda n: np.full((70, 300), n, np.float32),
        lambda n: torch.tensor(n),
        lambda n: torch.empty(0, 3),
        lambda n: n,
        lambda n: float(n),
        lambda n: n % 2 == 0,
        lambda n: f"text {n}",
        lambda n: np.float16(n),
    ]
)
_sample = st.recursive(
    _leaf,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1).map(
            lambda fields: lambda n: {name: make(n) for name, make in fields.items()}
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda makes: lambda n: [make(n) for make in makes]),
        st.tuples(inner, inner).map(lambda makes: lambda n: tuple(make(n) for make in makes)),
        st.tuples(inner, inner).map(lambda makes: lambda n: Point(*(make(n) for make in makes))),
    ),
    max_leaves=6,
)


@given(_sample, st.integers(1, 9))
def test_batches_are_those_of_default_collate(make: Any, size: int) -> None:
    samples = [make(number) for number in range(size)]
    assert alike(edldist.collate(samples), default_collate(samples))


def test_a_large_batch_lies_in_a_slot_that_is_filled_again_when_it_is_gone() -> None:
    samples = [torch.full(LARGE, n, dtype=torch.uint8) for n in range(16)]
    places = set()
    for _ in range(5):
        batch = edldist.collate(samples)
        assert in_slot(batch)
        places.add(batch.data_ptr())
        del batch
    assert len(places) == 1
    view = edldist.collate(samples)[3]
    array = edldist.collate(samples).numpy()
    for _ in range(3):
        edldist.collate([sample + 100 for sample in samples])
    assert (view == 3).all() and (array[5] == 5).all()


def test_such_a_batch_is_lent_where_it_lies_and_counted_as_any_other() -> None:
    batch = {"x": edldist.collate([torch.full(LARGE, n, dtype=torch.uint8) for n in range(16)])}
    lent = lend(batch["x"][4:])
    assert lent is not None
    assert os.pread(lent.address.fd, 2, lent.offset) == b"\4\4"
    del lent
    assert held_bytes(batch) == 16 * 3 * 64 * 64
    parts = [batch["x"]]
    assert len(unshared(parts)) == 1
    view = batch["x"][0]
    assert not unshared(parts)
    del view


@pytest.mark.parametrize(
    "samples",
    [
        [torch.zeros(LARGE), torch.zeros(LARGE, dtype=torch.float64)],
        [torch.nn.Parameter(torch.zeros(LARGE))] * 2,
        [torch.zeros(LARGE, requires_grad=True)] * 2,
        [torch.zeros(LARGE, dtype=torch.uint8).share_memory_()],
    ],
    ids=["two dtypes", "a subclass", "with gradients", "small"],
)
def test_other_tensors_go_torch_s_way(samples: list[Tensor]) -> None:
    made, wanted = edldist.collate(samples), default_collate(samples)
    assert not in_slot(made) and made.dtype is wanted.dtype and torch.equal(made, wanted)
    assert made.requires_grad == wanted.requires_grad


def test_samples_that_differ_in_shape_are_torch_s_own_error() -> None:
    samples = [torch.zeros(100, 200), torch.zeros(100, 201)]
    with pytest.raises(RuntimeError) as wanted:
        default_collate(samples)
    with pytest.raises(RuntimeError) as said:
        edldist.collate(samples)
    assert str(said.value) == str(wanted.value)
    assert all(slab.free for slab in (collating._memory.pool._slabs if collating._memory else ()))


def test_when_no_slot_is_free_batches_lie_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collating, "_MOST_SLABS", 2)
    samples = [torch.full(LARGE, n, dtype=torch.uint8) for n in range(16)]
    kept = [edldist.collate(samples) for _ in range(4)]
    assert [in_slot(batch) for batch in kept] == [True, True, False, False]
    assert all(torch.equal(batch, torch.stack(samples)) for batch in kept)
    del kept[0]
    assert in_slot(edldist.collate(samples))


def test_without_memory_it_is_said_once_and_tried_again_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(collating, "of_process", lambda: Allowance(100, 1000))
    samples = [torch.full(LARGE, n, dtype=torch.uint8) for n in range(16)]
    now = [100.0]
    monkeypatch.setattr(collating.time, "monotonic", lambda: now[0])
    for _ in range(3):
        assert torch.equal(edldist.collate(samples), torch.stack(samples))
        now[0] += 6.0
    assert len(caplog.records) <= 1


def test_it_is_switched_off_as_all_of_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [torch.zeros(LARGE)] * 4
    monkeypatch.setenv("EDLDIST_SHARED_MEMORY", "0")
    assert not in_slot(edldist.collate(samples))
    monkeypatch.setenv("EDLDIST_SHARED_MEMORY", "yes")
    with pytest.raises(ConfigError, match="EDLDIST_SHARED_MEMORY='yes'"):
        edldist.collate(samples)


# --- what a worker makes ---------------------------------------------------------------------------------


@pytest.fixture
def pool() -> Iterator[SlabPool]:
    made = SlabPool(Allowance(100, 1 << 30))
    yield made
    made.close()


def of_worker(pool: SlabPool, content: int = 7) -> HandedOver:
    slab = pool.reserve(200_000)
    assert slab is not None
    made = in_workers_slab(slab, torch.float32, (50, 1000))
    made.fill_(content)
    return made


def test_what_is_computed_of_it_is_an_ordinary_tensor(pool: SlabPool) -> None:
    made = of_worker(pool)
    for derived in (made + 1, made[:3], made.half(), made.view(-1), torch.cat([made, made])):
        assert type(derived) is Tensor


def test_what_was_not_sent_is_free_when_nobody_refers_to_it(pool: SlabPool) -> None:
    made = of_worker(pool)
    view = made[1:]
    del made
    assert of_worker(pool, 8).data_ptr() != view.data_ptr() - 4000 and (view == 7).all()
    del view
    of_worker(pool)
    assert len(pool) == 2 and all(slab.free for slab in pool._slabs)


@pytest.mark.parametrize(
    "change", [lambda t: t.t_(), lambda t: t.requires_grad_(), lambda t: t.share_memory_()]
)
def test_what_was_changed_in_place_goes_torch_s_way(pool: SlabPool, change: Any) -> None:
    made = of_worker(pool)
    change(made)
    function, _ = made.message()
    assert function.__name__ == "_itself"


def test_only_the_first_message_takes_the_slab_along(pool: SlabPool) -> None:
    made = of_worker(pool)
    first, (filled, _, _) = made.message()
    second, (plain,) = made.message()
    os.close(os.dup(pool._slabs[0].fd))
    assert (first.__name__, second.__name__) == ("_from_slot", "_itself")
    assert type(plain) is Tensor and torch.equal(plain, made) and filled.generation == 1


def test_other_pickles_are_those_of_an_ordinary_tensor(pool: SlabPool) -> None:
    made = of_worker(pool)
    saved = io.BytesIO()
    torch.save({"x": made}, saved)
    saved.seek(0)
    for other in (
        pickle.loads(pickle.dumps(made)),
        copy.deepcopy(made),
        torch.load(saved, weights_only=True)["x"],
    ):
        assert torch.equal(other.as_subclass(Tensor), made.as_subclass(Tensor))
        assert other.data_ptr() != made.data_ptr()


@pytest.mark.parametrize(
    "small",
    [torch.arange(6).reshape(2, 3), torch.tensor(5.0), torch.ones(3).bfloat16(), torch.empty(0, 2)],
)
def test_small_tensors_go_byte_by_byte(small: Tensor) -> None:
    function, arguments = small.as_subclass(HandedOver).message()
    made = function(*arguments)
    assert type(made) is Tensor and made.dtype is small.dtype and torch.equal(made, small)
    assert not small.numel() or not made.is_shared()
