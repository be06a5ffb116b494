"""Sleepers are woken for what waits, as many as it takes, the longest sleeper first."""

from __future__ import annotations

import pytest

from edldist.student.queue.sleepers import Sleepers


def asleep(*workers: str, samples: int = 4) -> Sleepers:
    sleepers = Sleepers()
    for worker in workers:
        sleepers.sleep(worker, samples)
    return sleepers


def rouse(sleepers: Sleepers, samples: int, now: float = 0.0, suits: str = "abcdefgh", **options) -> str:
    woken = sleepers.rouse(samples, 1, lambda worker: worker in suits, now, **options)
    sleepers.validate()
    return "".join(woken)


@pytest.mark.parametrize(
    ("samples", "woken"), [(0, ""), (1, "a"), (4, "a"), (5, "ab"), (8, "ab"), (99, "abcd")]
)
def test_as_many_are_woken_as_can_pull_what_waits(samples, woken):
    assert rouse(asleep(*"abcd"), samples) == woken


def test_nobody_else_is_woken_for_what_was_promised_until_time_is_up():
    sleepers = asleep(*"abcd")
    assert rouse(sleepers, 4, 0.0) == "a"
    assert rouse(sleepers, 4, 0.09) == ""
    assert rouse(sleepers, 6, 0.09) == "b"
    assert "a" not in sleepers and len(sleepers) == 2
    assert rouse(sleepers, 6, 0.11) == "c", "the first found work elsewhere; the second was promised four"
    assert rouse(sleepers, 4, 0.5) == "d"


def test_a_promise_ends_when_the_worker_pulls_or_sleeps_or_leaves():
    for end in ("pull", "sleep"):
        sleepers = asleep(*"ab")
        assert rouse(sleepers, 4) == "a"
        if end == "pull":
            sleepers.forget("a")
        else:
            sleepers.sleep("a", 4)
        sleepers.validate()
        assert rouse(sleepers, 4) == "b"


def test_a_worker_that_takes_more_than_it_asks_for_is_expected_to():
    sleepers = asleep(*"abc", samples=2)
    assert sleepers.rouse(16, 8, lambda worker: True, 0.0) == ["a", "b"]


def test_sleepers_whom_nothing_suits_are_looked_at_last_the_next_time():
    sleepers = asleep(*"abcdefgh")
    looked_at = []

    def could_take(worker: str) -> bool:
        looked_at.append(worker)
        return worker == "h"

    assert sleepers.rouse(1, 1, could_take, 0.0, most_passed_over=3) == []
    assert sleepers.rouse(1, 1, could_take, 0.0, most_passed_over=3) == []
    assert sleepers.rouse(1, 1, could_take, 0.0, most_passed_over=3) == ["h"]
    assert looked_at == list("abcdefgh")
    assert [worker for worker, _ in sleepers.items()] == list("abcdefg")
