"""Data loaders that meet those of other ranks while they are read: at the same points of every loop."""

from __future__ import annotations

import threading

import pytest
import torch

from edldist.errors import ConfigError, LoaderClosedError
from edldist.student.loop import reading
from edldist.wire.memory import MemoryTransport
from tests.harness import local_job

pytestmark = pytest.mark.timeout(240)
BATCHES = 12


class Counting:
    """Batches of two ids; notes how often it was asked for one."""

    asked = 0

    def __iter__(self):
        for number in range(BATCHES):
            self.asked += 1
            yield {"id": torch.tensor([2 * number, 2 * number + 1])}
        self.asked += 1


class Meeting(Counting):
    """Does a collective whenever it is asked, or only when it is opened."""

    def __init__(self, collectives: list[int], always: bool = True) -> None:
        self._collectives = collectives
        self._always = always

    def __iter__(self):
        for number, batch in enumerate(super().__iter__()):
            self._collectives[0] += self._always or not number
            yield batch


@pytest.fixture
def job():
    with local_job(MemoryTransport()) as made:
        yield made


@pytest.fixture
def collectives(monkeypatch):
    """The count of this process's collectives, in a world of two ranks."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    count = [0]
    monkeypatch.setattr(reading, "collectives_begun", lambda: count[0])
    return count


def due(taken: int, depth: int) -> int:
    """How often the data loader was asked when the loop has so many batches: one of them is the end."""
    return min(BATCHES + 1, taken - 1 + depth)


@pytest.mark.parametrize("watermarks", [(2, 8), (0, 1), (1, 3)])
@pytest.mark.parametrize("max_bytes", [1, 1 << 30])
@pytest.mark.parametrize("labels", ["all there", "just in time"])
def test_in_lock_step_what_is_read_depends_on_the_loop_alone(job, watermarks, max_bytes: int, labels: str):
    job.teacher()
    low, high = watermarks
    source = Counting()
    loader = job.loader(
        source, "id", low_watermark=low, high_watermark=high, lock_step=True, max_bytes=max_bytes
    )
    asked = []
    for taken, _ in enumerate(loader, 1):
        asked.append(source.asked)
        pause = threading.Event()
        while labels == "all there" and loader.stats()["buffered"] < min(source.asked, BATCHES) - taken:
            pause.wait(0.001)
    assert asked == [due(taken, max(2, high)) for taken in range(1, BATCHES + 1)]


def test_a_stop_request_does_not_end_the_reading_of_a_rank_before_that_of_others(job, monkeypatch):
    job.teacher()
    source = Counting()
    loader = job.loader(source, "id", lock_step=True, high_watermark=3)
    asked = []
    for _ in loader:
        monkeypatch.setattr("edldist.lifecycle.stopping.asked", lambda: True)
        asked.append(source.asked)
    assert asked == [due(taken, 3) for taken in range(1, BATCHES + 1)]


@pytest.mark.parametrize("max_bytes", [1, 1 << 30])
def test_a_data_loader_that_turns_out_to_do_collectives_is_refused(job, collectives, max_bytes: int):
    job.teacher()
    source = Meeting(collectives)
    loader = job.loader(source, "id", max_bytes=max_bytes)
    got = []
    with pytest.raises(ConfigError, match=r"\(Meeting\) does collectives while it is read.*lock_step=True"):
        for batch, _ in loader:
            got.append(batch["id"].tolist())
            assert source.asked == 2, "before the loop does collectives of its own"
    assert got == [[0, 1]]


def test_collectives_at_the_opening_of_an_epoch_harm_nobody(job, collectives):
    job.teacher()
    assert len(list(job.loader(Meeting(collectives, always=False), "id"))) == BATCHES


def test_who_says_that_there_is_no_need_is_believed(job, collectives):
    job.teacher()
    assert len(list(job.loader(Meeting(collectives), "id", lock_step=False))) == BATCHES


def test_a_loop_learns_which_batch_is_the_last(job):
    job.teacher()
    loader = job.loader(Counting(), "id", low_watermark=0, high_watermark=1)
    with pytest.raises(LoaderClosedError, match="no loop runs"):
        _ = loader.ends_epoch
    for _ in range(2):
        assert [loader.ends_epoch for _ in loader] == [False] * (BATCHES - 1) + [True]


def test_an_error_of_the_data_loader_is_no_end_of_an_epoch(job):
    def broken():
        yield {"id": torch.tensor([1])}
        raise ValueError("boom")

    job.teacher()
    loader = job.loader(broken(), "id", low_watermark=0, high_watermark=1)
    with pytest.raises(ValueError, match="boom"):
        for _ in loader:
            assert not loader.ends_epoch
