"""A worker that runs out of memory works in smaller passes from then on, and nothing is lost."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import tests.models
from edldist.errors import PoisonTaskError
from edldist.teacher.passes import lane

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def room(monkeypatch):
    """Makes ``tests.models:roomy`` a teacher with memory for so many samples; returns its pass sizes.

    Every pass takes as long as any other by the clock of the one who measures it, so that larger is faster.
    """
    ticks = SimpleNamespace(perf_counter=itertools.count().__next__)
    monkeypatch.setattr(lane, "time", ticks)

    def make(samples: int) -> list[int]:
        sizes: list[int] = []

        def label(id: Tensor) -> Tensor:  # noqa: A002
            sizes.append(len(id))
            if len(id) > samples:
                raise torch.OutOfMemoryError(f"no memory for {len(id)} samples on purpose")
            return id.unsqueeze(1) * 2

        monkeypatch.setattr(tests.models, "roomy", lambda: label, raising=False)
        return sizes

    return make


def batches(count: int) -> list[dict]:
    rng, ids = random.Random(0), itertools.count()
    return [{"id": torch.tensor([next(ids) for _ in range(rng.randint(1, 90))])} for _ in range(count)]


def consume(loader) -> int:
    """Samples of an epoch, each checked to be there once, in order and with its own label."""
    following = 0
    for batch, labels in loader:
        assert int(batch["id"][0]) == following
        assert torch.equal(labels["logits"].squeeze(1), batch["id"] * 2)
        following += len(batch["id"])
    return following


@pytest.mark.parametrize("batch_size", [64, "auto"])
def test_a_worker_finds_the_size_that_fits_and_loses_nothing(job, room, batch_size):
    sizes = room(20)
    worker = job.teacher("roomy", batch_size=batch_size)
    data = batches(400)
    loader = job.loader(data, inputs="id")
    assert consume(loader) == int(data[-1]["id"][-1]) + 1
    stats = loader.stats()
    assert (stats["failed"], stats["requeued"], stats["duplicates"]) == (0, 0, 0)
    told = worker._stats()
    assert told["out_of_memory"] == sum(size > 20 for size in sizes) >= 1
    assert told["batch_size"] == 16
    assert max(sizes[-50:]) <= 16


def test_workers_of_different_memory_share_a_job(job, room):
    room(5)
    job.teacher("roomy", batch_size=32)
    room(1000)
    job.teacher("roomy", batch_size="auto")
    data = batches(300)
    loader = job.loader(data, inputs="id")
    assert consume(loader) == int(data[-1]["id"][-1]) + 1
    assert loader.stats()["failed"] == 0


def test_a_batch_size_larger_than_any_batch_works(job, room):
    sizes = room(10**9)
    job.teacher("roomy", batch_size=100_000)
    data = batches(50)
    assert consume(job.loader(data, inputs="id")) == int(data[-1]["id"][-1]) + 1
    assert max(sizes) < 100_000


def test_a_fixed_cut_that_fits_no_worker_ends_in_the_loop_with_what_to_change(job, room):
    room(3)
    job.teacher("roomy", batch_size=8)
    data = [{"id": torch.arange(3)}, {"id": torch.arange(3, 11)}]
    loader = job.loader(data, inputs="id", deterministic=True)
    with pytest.raises(
        PoisonTaskError, match=r"samples 0..7 of batch 1[\s\S]*lower the teacher's batch_size"
    ):
        list(loader)


def test_a_single_sample_that_fits_nowhere_ends_in_the_loop(job, room):
    room(0)
    job.teacher("roomy", batch_size=8)
    with pytest.raises(PoisonTaskError, match=r"no memory for a single sample[\s\S]*on purpose"):
        list(job.loader(batches(1), inputs="id"))
