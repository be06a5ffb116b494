"""A coordinator that was told to leave stays for those who are still there, and not for ever."""

from __future__ import annotations

from signal import SIGINT, SIGTERM

import pytest

from edldist.coordinator.closing import LEAVE_S, Closing


def test_one_that_nobody_told_goes_on_with_nobody() -> None:
    closing = Closing()
    assert not closing.begun
    assert not closing.over(connected=0, now=1e6)


def test_it_ends_as_soon_as_everyone_has_hung_up() -> None:
    closing = Closing()
    closing.told(SIGTERM, 10.0)
    assert closing.begun
    assert not closing.over(connected=2, now=10.0)
    assert not closing.over(connected=1, now=12.0)
    assert closing.over(connected=0, now=12.1)


def test_it_ends_in_time_whoever_stays() -> None:
    closing = Closing()
    closing.told(SIGTERM, 10.0)
    assert not closing.over(connected=7, now=10.0 + LEAVE_S - 0.01)
    assert closing.over(connected=7, now=10.0 + LEAVE_S)


@pytest.mark.parametrize("again", [[(SIGTERM, 10.01)], [(SIGTERM, 13.0)], [(SIGINT, 10.5)]])
def test_managers_repeat_themselves(again: list[tuple[int, float]]) -> None:
    """And do not put off the end by it."""
    closing = Closing()
    closing.told(SIGTERM, 10.0)
    for signum, now in again:
        closing.told(signum, now)
    assert not closing.over(connected=1, now=14.0)
    assert closing.over(connected=1, now=10.0 + LEAVE_S)


def test_a_person_insists() -> None:
    closing = Closing()
    closing.told(SIGINT, 10.0)
    closing.told(SIGINT, 11.5)
    assert closing.over(connected=1, now=11.5)
