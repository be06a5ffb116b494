"""What a loader keeps alive: nothing that the loop has let go, and nothing at all once it is closed."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
import torch

from edldist.errors import LoaderClosedError
from edldist.student.batch.batch import OpenBatch
from edldist.student.memory.structure import mapped
from edldist.student.memory.to_device import Copies
from tests import models

pytestmark = pytest.mark.timeout(240)


class Batch(dict):
    """A batch that can be referred to weakly."""


class Device:
    """Stands for one: copies, one batch ahead."""

    ahead = True
    allocate = None

    def begin(self, value):
        return Copies(mapped(value, torch.clone), [], None)

    def end(self, copies):
        return copies.value


@pytest.fixture(params=["host", "device"])
def place(request, monkeypatch):
    if request.param == "device":
        monkeypatch.setattr("edldist.student.loader.copier_for", lambda device, pin_memory: Device())


def numbered(count: int, made: list[weakref.ref]):
    """Batches that nothing here holds, as a suspended generator would."""

    def make(number: int) -> Batch:
        batch = Batch(id=torch.full((4,), number))
        made.append(weakref.ref(batch))
        return batch

    return map(make, range(count))


def until_dead(references, wait_s: float = 90.0) -> None:
    """The I/O thread and the worker's let go of what they work on in their own time."""
    pause = threading.Event()
    for _ in range(int(wait_s / 0.01)):
        if not any(reference() is not None for reference in references):
            return
        pause.wait(0.01)
    alive = sum(reference() is not None for reference in references)
    raise AssertionError(f"{alive} of {len(references)} batches are kept alive")


def test_a_batch_that_the_loop_has_let_go_is_gone_before_the_next_one_is_fetched(memory_job, place):
    memory_job.teacher()
    made: list[weakref.ref] = []
    loader = memory_job.loader(numbered(12, made), inputs="id")
    got: list[weakref.ref] = []
    for batch, labels in loader:  # not enumerated: that would keep the pair
        number = len(got) // 2
        assert batch["id"][0] == number
        got.append(weakref.ref(labels["logits"]))
        got.append(weakref.ref(batch))
        del batch, labels
        until_dead([*got, *made[: number + 1]])
    assert len(got) == 24


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("taken", [1, 5])
def test_closed_in_mid_epoch_a_loader_keeps_no_batch(memory_job, place, monkeypatch, taken, ranks):
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    memory_job.teacher("waits_at_gate")
    made: list[weakref.ref] = []
    loader = memory_job.loader(numbered(40, made), inputs="id", on_poison="skip")
    running = iter(loader)
    models.GATE.set()
    for _ in range(taken):
        next(running)
    models.GATE.clear()  # what is leased now stays so
    assert len(made) > taken
    made += [weakref.ref(it) for it in gc.get_objects() if type(it) is OpenBatch and type(it.batch) is Batch]
    loader.close()
    models.GATE.set()
    until_dead(made)
    with pytest.raises(LoaderClosedError):
        next(running)


def test_a_loader_that_is_closed_by_another_thread_ends_its_loop(memory_job):
    models.GATE.clear()
    memory_job.teacher("waits_at_gate")
    loader = memory_job.loader([{"id": torch.arange(4)}] * 9, inputs="id")
    closer = threading.Timer(0.2, loader.close)
    closer.start()
    try:
        with pytest.raises(LoaderClosedError):
            next(iter(loader))
    finally:
        models.GATE.set()
        closer.join()
