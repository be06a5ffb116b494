"""A task that holds the loop up is given to an idle worker too, however full the queue is behind it."""

from __future__ import annotations

import itertools
import threading

import pytest
import torch

from edldist.wire.memory import MemoryTransport
from tests import models
from tests.harness import local_job

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def job(monkeypatch):
    counted = itertools.count()

    def first_waits_at_gate():
        return models.waits_at_gate() if next(counted) == 0 else lambda id: id.unsqueeze(1)

    monkeypatch.setattr(models, "first_waits_at_gate", first_waits_at_gate, raising=False)
    models.GATE.clear()
    with local_job(MemoryTransport()) as made:
        yield made
        models.GATE.set()
    assert made.errors == []


def test_a_stuck_worker_does_not_hold_the_loop_up_when_all_batches_behind_are_labelled(job):
    job.teacher("first_waits_at_gate", batch_size=4)
    loader = job.loader([{"id": torch.arange(4) + 4 * n} for n in range(40)], inputs="id", high_watermark=4)
    seen: list[int] = []

    def loop() -> None:
        for batch, labels in loader:
            assert torch.equal(labels["logits"], batch["id"].unsqueeze(1))
            seen.extend(batch["id"].tolist())

    training = threading.Thread(target=loop)
    training.start()
    while loader.stats()["open"] == 0 or loader.stats()["teachers"] == 0:
        training.join(0.01)
    job.teacher("first_waits_at_gate", batch_size=4)
    training.join(10)  # the gate stays shut: the first worker answers nothing
    assert not training.is_alive() and not models.GATE.is_set()
    assert seen == list(range(160))
    assert 1 <= loader.stats()["hedged"] <= 2
