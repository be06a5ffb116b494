"""A loop on an overloaded fleet: cheaper teachers for a while, or nothing to read; every sample once."""

from __future__ import annotations

import pytest
import torch

from edldist.wire.messages import Shed

pytestmark = pytest.mark.timeout(240)

BATCHES, SIZE = 40, 4
CODECS = {"big": "topk:4", "lean": "topk:2"}


@pytest.fixture
def fleet(memory_job, monkeypatch):
    """A job whose script asks ``big``, and which may be degraded to the same model with a smaller codec."""
    monkeypatch.setenv("EDLDIST_DEGRADE", "lean")
    for name, codec in CODECS.items():
        memory_job.teacher("scores", name=name, codec=codec)
    return memory_job


def data() -> list[dict[str, torch.Tensor]]:
    return [{"ids": torch.arange(at, at + SIZE)} for at in range(0, BATCHES * SIZE, SIZE)]


def told(loader, **shed: object) -> None:
    now = loader._service._clock.monotonic()
    loader._service._job.shedding.take(Shed(retry_after_s=60.0, **shed), now)


def test_batches_that_are_read_meanwhile_have_the_labels_of_the_cheaper_teacher(fleet):
    loader = fleet.loader(data(), "ids", teacher="big", high_watermark=3, low_watermark=1)
    kept: list[int] = []
    for number, (batch, labels) in enumerate(loader):
        assert batch["ids"].tolist() == list(range(number * SIZE, (number + 1) * SIZE)), "in order, each once"
        assert labels.keys() == {"logits"}
        assert labels["logits"].ids[:, 0].tolist() == batch["ids"].tolist()
        kept.append(labels["logits"].ids.shape[1])
        if number == 9:
            told(loader, step=3, degrade=1)
        if number == 24:
            told(loader, step=0)
    assert kept[:10] == [4] * 10 and kept[-5:] == [4] * 5, "the teacher that the script asks"
    assert kept == sorted(kept[:25], reverse=True) + sorted(kept[25:]), "there and back, once each"
    stats = loader.stats()
    assert stats["degraded"] == SIZE * kept.count(2) > 0
    assert stats["samples"] == BATCHES * SIZE and stats["shed"] == 0


def test_a_job_that_waits_reads_on_when_nobody_says_so_any_more(fleet, monkeypatch):
    monkeypatch.setenv("EDLDIST_DEGRADE", "")
    loader = fleet.loader(data(), "ids", teacher="big")
    batches = iter(loader)
    next(batches)
    now = loader._service._clock.monotonic()
    why = "others take all"
    loader._service._job.shedding.take(Shed(step=4, retry_after_s=0.5, waits=why), now)
    assert loader.stats()["held_back"] == why
    assert sum(1 for _ in batches) == BATCHES - 1
    stats = loader.stats()
    assert stats["held_s"] >= 0.5 and "held_back" not in stats and stats["samples"] == BATCHES * SIZE


def test_what_a_loop_has_made_is_labelled_by_the_cheaper_teacher_too(fleet):
    teachers = fleet.requests("ids", teacher="big")
    told(teachers, step=3, degrade=1)
    for batch in data()[:3]:
        assert teachers.request(batch).labels()["logits"].ids.shape[1] == 2
