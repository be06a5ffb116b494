"""What a worker could give is what its full passes show, less what it loses besides when it is never idle."""

from __future__ import annotations

import math

import pytest

from edldist.teacher.capacity import WARM_UP, Capacity


def warm(**facts: float) -> Capacity:
    capacity = Capacity()
    for _ in range(WARM_UP):
        capacity.passed(64, 100.0, 1.0)
    return capacity


def test_is_unknown_before_the_first_pass_that_counts() -> None:
    capacity = warm()
    assert capacity.seen(0.0, 128, 0.0) is None
    capacity.passed(64, 0.5, 1.0)
    assert capacity.seen(1.0, 192, 0.0) == pytest.approx(128.0)


def test_a_pass_that_took_no_time_counts_for_nothing() -> None:
    capacity = warm()
    capacity.passed(64, 0.0, 1.0)
    assert capacity.seen(0.0, 192, 0.0) is None
    capacity.passed(64, 0.5, 1.0)
    capacity.passed(64, 0.0, 1.0)
    assert capacity.seen(1.0, 192, 0.0) == pytest.approx(128.0)


@pytest.mark.parametrize(("fullness", "known"), [(0.74, 100.0), (0.75, 10.0)])
def test_small_passes_say_nothing_once_there_were_full_ones(fullness: float, known: float) -> None:
    capacity = warm()
    capacity.passed(64, 0.64, 1.0)
    for _ in range(100):
        capacity.passed(5, 0.5, fullness)
    assert capacity.seen(0.0, 1000, 0.0) == pytest.approx(known, rel=0.02)


def test_where_there_are_no_full_ones_small_ones_are_better_than_nothing() -> None:
    capacity = warm()
    capacity.passed(5, 0.5, 0.1)
    assert capacity.seen(0.0, 1000, 0.0) == pytest.approx(10.0)


def test_follows_a_change_of_pace() -> None:
    capacity = warm()
    for seconds in (0.5, 1.0):
        for _ in range(100):
            capacity.passed(64, seconds, 1.0)
    assert capacity.seen(0.0, 1000, 0.0) == pytest.approx(64.0, rel=0.02)


def test_after_ten_seconds_of_computing_a_pass_counts_e_times_less() -> None:
    capacity = warm()
    for samples, passes in ((128, 1000), (64, 100)):
        for _ in range(passes):
            capacity.passed(samples // 8, 0.1, 1.0)
    assert capacity.seen(0.0, 1000, 0.0) == pytest.approx(80 * (1 + math.exp(-1)), rel=0.02)


class TestWhatIsLostBesides:
    def seen(self, capacity: Capacity, per_s: float, idle: float, seconds: int = 30) -> float:
        capacity.passed(64, 0.64, 1.0)
        told = [capacity.seen(float(now), round(per_s * now), idle * now) for now in range(seconds)]
        assert told[-1] is not None
        return told[-1]

    def test_shows_when_there_is_always_something_to_do(self) -> None:
        assert self.seen(warm(), per_s=80, idle=0.0) == pytest.approx(80.0)
        assert self.seen(warm(), per_s=80, idle=0.04) == pytest.approx(80.0)

    @pytest.mark.parametrize("idle", [0.06, 0.9])
    def test_does_not_show_when_there_sometimes_is_nothing(self, idle: float) -> None:
        assert self.seen(warm(), per_s=20, idle=idle) == pytest.approx(100.0)

    def test_is_remembered(self) -> None:
        capacity = warm()
        self.seen(capacity, per_s=80, idle=0.0)
        told = [capacity.seen(float(now), 80 * 30, now - 29.0) for now in range(30, 90)]
        assert told[-1] == pytest.approx(80.0)

    def test_is_never_less_than_nothing(self) -> None:
        assert self.seen(warm(), per_s=130, idle=0.0) == pytest.approx(100.0)

    def test_takes_ten_seconds_to_show(self) -> None:
        assert self.seen(warm(), per_s=80, idle=0.0, seconds=10) == pytest.approx(100.0)
        assert self.seen(warm(), per_s=80, idle=0.0, seconds=11) == pytest.approx(80.0)

    def test_is_of_the_last_seconds_and_not_of_all_there_were(self) -> None:
        capacity = warm()
        capacity.passed(64, 0.64, 1.0)
        told = [capacity.seen(float(now), 80 * now, 500.0) for now in range(30)]
        assert told[-1] == pytest.approx(80.0)

    def test_does_not_show_in_time_in_which_nothing_was_labelled(self) -> None:
        """A pass may take longer than the time that is looked at."""
        assert self.seen(warm(), per_s=0, idle=0.0) == pytest.approx(100.0)
