"""Memory is taken for a batch's own only if nobody else has any way to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch._C._dynamo import eval_frame
from torch.utils.data import DataLoader

from edldist.student.memory import ownership
from edldist.student.memory.containers import taken_over
from edldist.student.memory.leaves import leaves
from edldist.student.memory.ownership import unshared

SAMPLES = [{"x": torch.full((20_000,), float(n)), "y": n} for n in range(4)]


def found_unshared(box: list) -> int:
    """How many parts of a batch are unshared, its only known owner being a list that gives it away."""
    batch = taken_over(box.pop()).batch
    parts = leaves(batch)
    return len(unshared(parts))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(1000),
        lambda: torch.stack([torch.zeros(3)] * 4),
        lambda: torch.zeros(8, 3, 4).permute(0, 2, 1),
        lambda: torch.zeros(1000)[:8],
        lambda: {"x": torch.zeros(10)},
        lambda: [{"deep": (torch.zeros(10),)}],
        lambda: np.zeros(10),
        lambda: torch.nn.Parameter(torch.zeros(10)),
    ],
)
def test_what_was_just_made_is_unshared(make):
    assert found_unshared([make()]) == 1


def test_a_tensor_that_was_made_in_inference_mode_is_unshared():
    with torch.inference_mode():
        assert found_unshared([torch.zeros(10)]) == 1


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.timeout(240)
def test_the_batches_of_a_plain_data_loader_are_unshared(workers):
    batches = iter(DataLoader(SAMPLES, batch_size=2, num_workers=workers))
    for _ in range(2):
        assert found_unshared([next(batches)]) == 2


HOLDERS = {
    "the tensor": lambda t: t,
    "a list of it": lambda t: [t],
    "a view": lambda t: t[:1],
    "data": lambda t: t.data,
    "detached": lambda t: t.detach(),
    "the storage": lambda t: t.untyped_storage(),
    "a typed storage": lambda t: t.storage(),
    "an array": lambda t: t.numpy(),
    "a buffer": lambda t: memoryview(t.numpy()),
    "a capsule": lambda t: torch.utils.dlpack.to_dlpack(t),
    "an array by DLPack": np.from_dlpack,
    "autograd": lambda t: (torch.ones(1000, requires_grad=True) * t).sum(),
    "a closure": lambda t: lambda: t,
}


@pytest.mark.filterwarnings("ignore:TypedStorage")
@pytest.mark.parametrize("how", HOLDERS)
@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"x": t}, lambda t: (t, 3)])
def test_what_anybody_else_holds_is_shared(how, wrap):
    tensor = torch.zeros(1000)
    kept = HOLDERS[how](tensor)
    box = [wrap(tensor)]
    del tensor
    assert found_unshared(box) == 0
    del kept


@pytest.mark.parametrize("hold", [lambda b: b, lambda b: [b], lambda b: b["pair"]])
def test_a_container_that_is_held_holds_what_is_in_it(hold):
    box = [{"pair": (torch.zeros(10), [torch.zeros(10)])}]
    kept = hold(box[0])
    assert found_unshared(box) == 0
    del kept


@pytest.mark.parametrize(
    "view", [lambda t: t[:8], lambda t: t.view(10, 100), lambda t: t.as_subclass(torch.nn.Buffer)]
)
@pytest.mark.parametrize("hold", [lambda t: t, lambda t: t[9:], lambda t: t.numpy(), lambda t: t.data])
def test_a_view_of_what_is_held_is_shared(view, hold):
    pool = torch.zeros(1000)
    kept = hold(pool)
    box = [view(pool)]
    del pool
    assert found_unshared(box) == 0
    del kept


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.from_numpy(np.zeros(10)),
        lambda: torch.frombuffer(bytearray(80), dtype=torch.uint8),
        lambda: np.frombuffer(bytearray(80), np.uint8),
        lambda: np.zeros(10)[:5],
    ],
)
def test_memory_of_unknown_owners_is_shared(make):
    assert found_unshared([make()]) == 0


def test_a_file_that_is_mapped_is_shared(tmp_path):
    path = str(tmp_path / "data")
    assert found_unshared([torch.from_file(path, shared=True, size=100)]) == 0


def test_an_array_that_is_looked_at_elsewhere_is_shared():
    array = np.zeros(10)
    kept = torch.from_numpy(array)
    box = [array]
    del array
    assert found_unshared(box) == 0
    del kept


def test_what_is_in_a_batch_twice_is_not_told_from_what_is_held():
    tensor = torch.zeros(10)
    box = [{"x": tensor, "again": tensor}]
    del tensor
    assert found_unshared(box) == 0


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(3, 3).to_sparse(),
        lambda: torch.zeros(3, 3).to_sparse_csr(),
        lambda: torch.zeros(3, device="meta"),
    ],
)
def test_what_has_no_dense_host_memory_is_not_asked_about(make):
    assert unshared([make()]) == frozenset()


@pytest.mark.parametrize("first", [False, True])
def test_what_is_unshared_is_so_whether_or_not_something_watches_frames(first):
    """As torch.compile does while it is at work: then the interpreter refers to arguments more often."""
    ownership._known.clear()
    for watched in (first, not first):
        with watched_frames() if watched else contextlib.nullcontext():
            for extra in range(4):
                box = [torch.zeros(10)]
                held = [box[0] for _ in range(extra)]
                assert found_unshared(box) == (not held), (watched, extra)


@contextlib.contextmanager
def watched_frames() -> Iterator[None]:
    before = eval_frame.set_eval_frame(False)
    try:
        yield
    finally:
        eval_frame.set_eval_frame(before)
