"""When reports are sent, sent again, and given up: a reporter's turns, called by hand on a standing clock."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

import pytest

from edldist.clock import FakeClock
from edldist.observe import reporter as reporting
from edldist.observe.reporter import Reporter
from edldist.wire.memory import MemoryTransport
from edldist.wire.messages import Ack, Report
from edldist.wire.transport import Received

ADDRESS = "tcp://coordinator:1"


class Desk:
    """A coordinator that answers when it is told to, and the reporter that talks to it."""

    def __init__(self) -> None:
        self.clock = FakeClock(100.0)
        transport = MemoryTransport()
        self.poller = transport.poller()
        self.hub = self.poller.bind(ADDRESS)
        self.reporter = Reporter(ADDRESS, 0, transport, clock=self.clock)
        self.heard: list[Received] = []

    def turn(self, after_s: float = 0.0) -> list[int]:
        """Let some time go by and the reporter have a turn; the steps that came."""
        self.due = self.reporter.turn(self.clock.advance(after_s))
        came = []
        while (received := self.hub.receive()) is not None:
            assert isinstance(received.message, Report)
            self.heard.append(received)
            came.append(int(received.message.values["step"]))
        return came

    def say(self, *steps: int) -> None:
        for step in steps:
            self.reporter.report({"step": step})

    def acknowledge(self, step: int) -> None:
        (seq,) = {each.message.seq for each in self.heard if each.message.values["step"] == step}
        self.hub.send(self.heard[-1].sender, Ack(seq=seq))

    def ask_to_end(self) -> None:
        self.reporter._closing = True


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(reporting, "_end_expected", False)  # a test of signals may have left it
    before = threading.active_count()
    desk = Desk()
    yield desk
    assert threading.active_count() == before, "nobody started it"
    desk.reporter._closing, desk.reporter.ended = True, True
    desk.reporter.close()
    desk.poller.close()


def test_what_is_new_is_sent_at_once_and_what_is_not_answered_each_second(desk: Desk) -> None:
    desk.say(1, 2)
    assert desk.turn() == [1, 2]
    assert desk.turn(0.5) == [] and desk.due == 101.0
    desk.say(3)
    assert desk.turn(0.4) == [3]
    assert desk.turn(0.1) == [1, 2, 3], "in order, the older ones first"
    desk.acknowledge(2)
    assert desk.turn(1.0) == [3]
    desk.acknowledge(3)
    assert desk.turn(1.0) == [] and desk.turn(60.0) == []


def test_it_ends_once_everything_was_answered(desk: Desk) -> None:
    desk.say(1)
    desk.turn()
    desk.ask_to_end()
    desk.turn(0.1)
    assert not desk.reporter.ended
    desk.acknowledge(1)
    desk.turn(0.1)
    assert desk.reporter.ended


def test_with_nothing_to_say_it_ends_at_once(desk: Desk) -> None:
    desk.ask_to_end()
    desk.turn()
    assert desk.reporter.ended


def test_a_coordinator_that_never_answered_has_a_while_for_that(desk: Desk) -> None:
    desk.say(1)
    desk.turn(300.0)
    desk.ask_to_end()
    desk.turn()
    for _ in range(15):
        desk.turn(1.0)
        assert not desk.reporter.ended
    desk.turn(0.1)
    assert desk.reporter.ended


def test_one_that_answered_before_has_so_long_from_its_last_word_on(desk: Desk) -> None:
    desk.say(1, 2)
    desk.turn()
    desk.ask_to_end()
    desk.turn(1.0)
    desk.acknowledge(1)
    desk.turn(3.0)
    assert desk.turn(4.9) == [2] and not desk.reporter.ended and desk.due == 109.0
    desk.turn(0.2)
    assert desk.reporter.ended


def test_a_process_that_was_asked_to_end_is_brief(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "_end_expected", True)
    desk.say(1)
    desk.turn()
    desk.ask_to_end()
    desk.turn(0.1)
    assert desk.turn(0.95) == [1] and not desk.reporter.ended
    desk.turn(0.1)
    assert desk.reporter.ended


def test_nothing_is_due_at_infinity(desk: Desk) -> None:
    desk.turn()
    assert desk.due < math.inf, "a fork's words ring no bell where its parent was just looking"
