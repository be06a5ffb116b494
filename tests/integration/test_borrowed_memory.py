"""What a data loader fills again is refused or copied, and never delivered as something else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edldist.errors import InputError

pytestmark = pytest.mark.timeout(240)


class Refilling:
    """Yields batches of four ids in one of a few buffers, filled in turn.

    Args:
        kind: who writes: torch, which counts it, numpy or the address.
        buffers: how many.
        kept: whether the same tensor objects are yielded again.
    """

    def __init__(self, kind: str, buffers: int = 1, kept: bool = True, batches: int = 6) -> None:
        self.kind, self.batches = kind, batches
        self.tensors = [torch.zeros(4, dtype=torch.int64) for _ in range(buffers)]
        self.kept = kept

    def __iter__(self):
        for number in range(self.batches):
            tensor = self.tensors[number % len(self.tensors)]
            ids = np.arange(4 * number, 4 * number + 4)
            if self.kind == "torch":
                tensor.copy_(torch.from_numpy(ids))
            elif self.kind == "numpy":
                tensor.numpy()[:] = ids
            else:
                tensor.data.untyped_storage().copy_(torch.from_numpy(ids).untyped_storage())
            yield {"id": tensor if self.kept else tensor.view(4)}

    def __len__(self) -> int:
        return self.batches


def consumed(loader) -> list[int]:
    """The ids in order, each with its own label."""
    seen: list[int] = []
    for batch, labels in loader:
        ids = batch["id"].tolist()
        assert labels["logits"].tolist() == [[n, 2 * n + 1] for n in ids]
        assert ids == list(range(len(seen), len(seen) + 4)), "a batch was delivered as another"
        seen += ids
    return seen


@pytest.mark.parametrize("kind", ["torch", "numpy", "address"])
@pytest.mark.parametrize(("buffers", "kept"), [(1, True), (1, False), (3, True), (3, False)])
def test_memory_that_is_filled_again_is_refused_and_the_error_says_what_helps(
    memory_job, kind, buffers, kept
):
    memory_job.teacher()
    loader = memory_job.loader(Refilling(kind, buffers, kept), inputs="id")
    with pytest.raises(InputError, match=r"torch.int64 and shape \[4\].*written to.*copy_batches=True"):
        consumed(loader)


@pytest.mark.parametrize("kind", ["torch", "numpy", "address"])
@pytest.mark.parametrize("epochs", [None, 2])
def test_copied_batches_are_what_the_plain_loop_sees(memory_job, kind, epochs):
    memory_job.teacher()
    loader = memory_job.loader(Refilling(kind), inputs="id", copy_batches=True, epochs=epochs)
    for _ in range(2):
        assert consumed(loader) == list(range(24))


@pytest.mark.parametrize("buffers", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("high_watermark", [1, 2, 4, 8])
def test_with_any_number_of_buffers_the_loop_gets_the_truth_or_an_error(memory_job, buffers, high_watermark):
    memory_job.teacher(batch_size=3)
    data = Refilling("numpy", buffers, batches=30)
    loader = memory_job.loader(data, inputs="id", low_watermark=0, high_watermark=high_watermark)
    try:
        assert consumed(loader) == list(range(120))
    except InputError as exc:
        assert "copy_batches=True" in str(exc)


def test_what_no_teacher_sees_is_looked_at_too(memory_job):
    weights = torch.zeros(4)

    def batches():
        for number in range(6):
            weights.fill_(number)
            yield {"id": torch.arange(4) + number, "weights": weights}

    memory_job.teacher()
    with pytest.raises(InputError, match="torch.float32"):
        list(memory_job.loader(batches(), inputs="id"))


def test_inputs_that_a_callable_makes_in_memory_of_its_own_are_looked_at_too(memory_job):
    scaled = torch.zeros(4)

    def inputs(batch):
        return {"id": torch.mul(batch, 2.0, out=scaled)}

    memory_job.teacher()
    loader = memory_job.loader([torch.arange(4) + n for n in range(6)], inputs=inputs, copy_batches=True)
    with pytest.raises(InputError, match="torch.float32"):
        list(loader)


def test_memory_that_is_shared_and_left_alone_is_welcome(memory_job):
    memory_job.teacher()
    table, mask = torch.arange(24), np.ones(4)
    data = [{"id": table[at : at + 4], "mask": mask} for at in range(0, 24, 4)]
    loader = memory_job.loader(data * 3, inputs="id", epochs=2)
    for _ in range(2):
        assert sum(len(batch["id"]) for batch, _ in loader) == 72


def test_a_table_may_be_written_to_beside_the_batches_that_are_open(memory_job):
    """As by a loop that keeps what it computed in the table that its batches are cut from."""
    memory_job.teacher()
    table = torch.arange(400)
    loader = memory_job.loader([{"id": table[at : at + 4]} for at in range(0, 24, 4)], inputs="id")
    for number, _ in enumerate(loader):
        table[100 + number] = -1
    assert number == 5


@pytest.mark.parametrize("held", [{}, [None]])
def test_a_container_that_is_filled_again_arrives_as_often_as_it_was_filled(memory_job, held):
    key = "id" if isinstance(held, dict) else 0

    def batches():
        for number in range(6):
            held[key] = torch.arange(4) + 4 * number
            yield held

    memory_job.teacher()
    seen = []
    for batch, labels in memory_job.loader(batches(), inputs=key):
        ids = batch[key].tolist()
        assert next(iter(labels.values())).tolist() == [[n, 2 * n + 1] for n in ids]
        seen += ids
    assert seen == list(range(24))


@pytest.mark.parametrize("write", ["numpy", "data", "slice"])
def test_large_memory_between_zeros_is_looked_at_in_full(memory_job, write):
    pool = torch.zeros(2, 100_000)

    def batches():
        for number in range(6):
            view = {"numpy": pool.numpy(), "data": pool.data, "slice": pool}[write]
            view[:, 40_000] = number
            yield {"id": torch.arange(4) + number, "x": pool[0] if write == "slice" else pool}

    memory_job.teacher()
    with pytest.raises(InputError, match=r"torch.float32.*copy_batches=True"):
        list(memory_job.loader(batches(), inputs="id"))
