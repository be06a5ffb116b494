"""A loop on an overloaded fleet: cheaper teachers for a while, or nothing to read; every sample once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from edldist import DistillLoader
from edldist.errors import UnsuitableTeacherError
from edldist.teacher.passes.forward import Forward
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


@pytest.fixture
def one_group(memory_job, monkeypatch):
    """The same with one group of two workers, which answer with the smaller codec themselves."""
    monkeypatch.setenv("EDLDIST_DEGRADE", "codec=topk:2")
    for _ in range(2):
        memory_job.teacher("scores", name="big", codec=CODECS["big"], version="1")
    return memory_job


def data() -> list[dict[str, torch.Tensor]]:
    return [{"ids": torch.arange(at, at + SIZE)} for at in range(0, BATCHES * SIZE, SIZE)]


class Changing:
    """The same batches; as those at some places are read, the job is told how far it is degraded."""

    def __init__(self, steps: dict[int, int]) -> None:
        self.steps = steps
        self.loader: DistillLoader | None = None

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for number, batch in enumerate(data()):
            if number in self.steps:
                degrade = self.steps[number]
                told(self.loader, step=3 if degrade else 0, degrade=degrade)
            yield batch


def told(loader, **shed: object) -> None:
    now = loader._service._clock.monotonic()
    loader._service._job.shedding.take(Shed(retry_after_s=60.0, **shed), now)


@pytest.mark.parametrize("party", ["fleet", "one_group"])
def test_batches_that_are_read_meanwhile_have_cheaper_labels_and_every_sample_comes_once(party, request):
    batches = Changing({10: 1, 25: 0})
    loader = batches.loader = request.getfixturevalue(party).loader(
        batches, "ids", teacher="big", high_watermark=3, low_watermark=1
    )
    kept: list[int] = []
    for number, (batch, labels) in enumerate(loader):
        assert batch["ids"].tolist() == list(range(number * SIZE, (number + 1) * SIZE)), "in order, each once"
        assert labels.keys() == {"logits"}
        assert labels["logits"].ids[:, 0].tolist() == batch["ids"].tolist()
        kept.append(labels["logits"].ids.shape[1])
    assert kept == [4] * 10 + [2] * 15 + [4] * 15, "as it was when each was read"
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


@pytest.mark.parametrize("party", ["fleet", "one_group"])
def test_what_a_loop_has_made_is_labelled_more_cheaply_too(party, request):
    teachers = request.getfixturevalue(party).requests("ids", teacher="big")
    told(teachers, step=3, degrade=1)
    for batch in data()[:3]:
        assert teachers.request(batch).labels()["logits"].ids.shape[1] == 2


def test_two_jobs_of_one_fleet_get_each_its_own_codec(one_group, monkeypatch):
    degraded = one_group.loader(data(), "ids", teacher="big", high_watermark=3, low_watermark=1)
    told(degraded, step=3, degrade=1)
    monkeypatch.setenv("EDLDIST_DEGRADE", "")
    other = one_group.loader(data(), "ids", teacher="big", high_watermark=3, low_watermark=1)
    for (batch, small), (same, whole) in zip(degraded, other, strict=True):
        assert batch["ids"].tolist() == same["ids"].tolist() == small["logits"].ids[:, 0].tolist()
        assert torch.equal(small["logits"].ids[:, 0], whole["logits"].ids[:, 0])
        assert (small["logits"].ids.shape[1], whole["logits"].ids.shape[1]) == (2, 4)
    assert degraded.stats()["degraded"] == BATCHES * SIZE and "degraded" not in other.stats()


def test_a_store_keeps_labels_of_the_groups_own_codec_alone_and_gives_them_while_a_job_is_degraded(
    one_group, tmp_path
):
    loader = one_group.loader(
        data(), "ids", teacher="big", high_watermark=3, low_watermark=1, store=str(tmp_path / "kept")
    )
    told(loader, step=3, degrade=1)
    first = [labels["logits"].ids.shape[1] for _, labels in loader]
    told(loader, step=0)
    second = [labels["logits"].ids.shape[1] for _, labels in loader]
    told(loader, step=3, degrade=1)
    third = [labels["logits"].ids.shape[1] for _, labels in loader]
    assert set(first) == {2} and third == [4] * BATCHES, "what the store has is asked of nobody"
    assert second == [4] * BATCHES
    assert loader.stats()["store_hits"] == BATCHES * SIZE


def test_labels_of_another_kind_come_and_go_whichever_came_first(memory_job, monkeypatch):
    monkeypatch.setenv("EDLDIST_DEGRADE", "codec=topk:2")
    for _ in range(2):
        memory_job.teacher("scores", name="big", codec="dense")
    batches = Changing({0: 1, 10: 0, 25: 1})
    loader = batches.loader = memory_job.loader(
        batches, "ids", teacher="big", high_watermark=3, low_watermark=1
    )
    kinds = []
    for batch, labels in loader:
        its = labels["logits"]
        kinds.append(type(its).__name__)
        first = its.argmax(dim=1) if isinstance(its, torch.Tensor) else its.ids[:, 0]
        assert first.tolist() == batch["ids"].tolist()
    assert kinds == ["TopKLabels"] * 10 + ["Tensor"] * 15 + ["TopKLabels"] * 15
    assert loader.stats()["degraded"] == SIZE * kinds.count("TopKLabels") and not loader.stats()["requeued"]


def test_a_codec_that_the_teacher_cannot_make_ends_the_loop_at_its_start(memory_job, monkeypatch):
    monkeypatch.setenv("EDLDIST_DEGRADE", "codec=topk:2")
    monkeypatch.setattr(Forward, "makes", lambda self, codec: "its outputs are no distributions")
    memory_job.teacher("scores", name="big", codec="topk:4")
    loader = memory_job.loader(data(), "ids", teacher="big")
    why = "cannot send its labels as topk:2: its outputs are no distributions. Change the job's degrade"
    with pytest.raises(UnsuitableTeacherError, match=why):
        for _ in loader:
            pass
