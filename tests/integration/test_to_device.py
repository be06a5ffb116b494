"""Batches go to the device one ahead of the loop, across the ends of epochs."""

from __future__ import annotations

import threading

import pytest
import torch

import edldist
from edldist.student.memory.structure import mapped
from edldist.student.memory.to_device import Copies
from edldist.wire.memory import MemoryTransport
from tests.harness import local_job
from tests.integration.epochs import ids


@pytest.fixture
def job(memory_job):
    memory_job.teacher(batch_size=3)
    return memory_job


class OneAhead:
    """Stands for a device: copies by marking, and writes down the order of what happens."""

    ahead = True

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []

    def allocate(self, shape, dtype):
        return torch.full(tuple(shape), 0, dtype=dtype)

    def begin(self, value):
        number = -1 if value is None else int(value[0]["id"][0])
        self.log.append(("begin", number))
        return Copies(mapped(value, torch.clone), [], number)

    def end(self, copies):
        self.log.append(("end", copies.done))
        return copies.value


@pytest.fixture
def device(monkeypatch):
    """The device of all loaders of a test."""
    copier = OneAhead()
    monkeypatch.setattr("edldist.student.loader.copier_for", lambda device, pin_memory: copier)
    return copier


def numbered(count: int) -> list[dict[str, torch.Tensor]]:
    return [{"id": torch.tensor([number])} for number in range(count)]


@pytest.mark.parametrize("epochs", [None, 3])
def test_a_device_gets_every_batch_in_order_one_ahead_and_counts_what_was_consumed(job, device, epochs):
    loader = job.loader(numbered(8), inputs="id", epochs=epochs)
    for epoch in range(3):
        for number, (batch, labels) in enumerate(loader):
            assert batch["id"].tolist() == [number]
            assert labels["logits"].tolist() == [[number, 2 * number + 1]]
            place = {"epoch": epoch, "batches": number + 1, "samples": number + 1}
            state = loader.state_dict()
            assert state.pop("teachers").keys() == {"teacher"}
            assert state == place | {"world_size": 1}
    assert [number for what, number in device.log if what == "end"] == 3 * list(range(8))
    begun = ended = 0
    for what, _ in device.log:
        begun, ended = begun + (what == "begin"), ended + (what == "end")
        assert ended <= begun <= ended + 1
    assert loader.stats()["discarded"] == 0


def test_a_batch_is_on_its_way_while_the_loop_works_on_the_one_before(job, device):
    loader = job.loader(numbered(6), inputs="id", epochs=2)
    running = iter(loader)
    next(running)
    labelled = threading.Event()
    while loader.stats()["buffered"] + len(loader._arrivals._transfer) < 5:
        labelled.wait(0.01)
    next(running)
    assert device.log[-1] == ("begin", 2)
    for _ in range(4):
        next(running)
    while loader.stats()["buffered"] + len(loader._arrivals._transfer) < 2:
        labelled.wait(0.01)
    assert list(running) == []
    assert next(iter(loader))[0]["id"].tolist() == [0]
    assert len([entry for entry in device.log if entry == ("begin", 0)]) == 2


@pytest.mark.parametrize("left_at", range(1, 6))
def test_leaving_early_forgets_what_was_on_its_way(job, device, left_at):
    loader = job.loader(numbered(6), inputs="id", epochs=5, high_watermark=4)
    for number, _ in enumerate(loader, 1):
        if number == left_at:
            break
    stats = loader.stats()
    assert (stats["open"], len(loader._arrivals._transfer)) == (0, 0)
    assert ids(loader) == ids(loader) == [[number] for number in range(6)]
    assert loader.stats()["batches"] == left_at + 12


def test_poison_behind_a_good_batch_is_raised_when_it_is_due(device):
    with local_job(MemoryTransport()) as own:
        own.teacher("raises_on_13")
        loader = own.loader([{"id": torch.tensor([n])} for n in (11, 12, 13)], inputs="id")
        got = []
        with pytest.raises(edldist.errors.PoisonTaskError):
            for batch, _ in loader:
                got.append(batch["id"].item())
        assert got == [11, 12]
