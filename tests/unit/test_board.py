"""A snapshot for other threads: made while somebody asks, and never an old one for a new one."""

from __future__ import annotations

import time

import pytest

from edldist.clock import FakeClock
from edldist.coordinator.pages import board as board_module
from edldist.coordinator.pages.board import ANSWER_WITHIN_S, MAX_AGE_S, StatusBoard


class Owner:
    """Publishes what it is told to as soon as it is woken; ``asked`` counts that."""

    def __init__(self) -> None:
        self.asked = 0
        self.body: bytes | None = b"first"
        self.board = StatusBoard(self._wake, longest_turn_s=5.0)

    def _wake(self) -> None:
        assert self.board.wanted
        self.asked += 1
        if self.body is not None:
            self.board.publish(self.body)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock(100.0)
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    return clock


def test_a_snapshot_is_made_when_somebody_asks_and_serves_for_a_moment(clock: FakeClock) -> None:
    owner = Owner()
    assert not owner.board.wanted
    assert owner.board.read() == b"first" and not owner.board.wanted
    owner.body = b"second"
    clock.advance(MAX_AGE_S)
    assert owner.board.read() == b"first" and owner.asked == 1
    clock.advance(0.01)
    assert owner.board.read() == b"second" and owner.asked == 2


def test_an_owner_that_makes_none_in_time_is_not_answered_for_by_an_old_one(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_module, "ANSWER_WITHIN_S", 0.001)
    owner = Owner()
    owner.board.read()
    clock.advance(1.0)
    owner.body = None
    assert owner.board.read() is None and owner.board.wanted, "it is to make one still"


def test_it_waits_for_an_owner_that_is_busy(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, waits = Owner(), []
    owner.body = None

    def wait_for(fresh, within_s: float) -> bool:
        waits.append(within_s)
        assert not fresh()
        owner.board.publish(b"late")
        return fresh()

    monkeypatch.setattr(owner.board._changed, "wait_for", wait_for)
    assert owner.board.read() == b"late" and waits == [ANSWER_WITHIN_S]


def test_those_who_wait_are_told_of_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    owner, told = Owner(), []
    monkeypatch.setattr(owner.board._changed, "notify_all", lambda: told.append(owner.board._body))
    owner.board.publish(b"new")
    assert told == [b"new"]


def test_an_owner_that_has_not_turned_for_longer_than_it_may_is_stuck(clock: FakeClock) -> None:
    board = Owner().board
    clock.advance(5.0)
    assert board.stuck_s() is None
    clock.advance(0.5)
    assert board.stuck_s() == 5.5
    board.turned()
    assert board.stuck_s() is None
