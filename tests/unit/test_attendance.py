"""A node's reports, which are repeated until they are answered, and what it makes of the answers."""

from __future__ import annotations

import threading
import time

import pytest

from edldist.clock import FakeClock
from edldist.errors import CoordinatorUnreachableError, WireError
from edldist.meeting.attendance import KEEP_ALIVE_S, Attendance
from edldist.wire.memory import MemoryTransport
from edldist.wire.messages import GroupNode, NodeReport, Refused, RunView

ADDRESS = "tcp://coordinator:1"
REPORT = NodeReport(
    run="r",
    job="train",
    node=GroupNode(process="p", host="h", port=9, ranks=1),
    least=1,
    most=2,
    state="joining",
    seq=1,
)


class Node:
    """One node's attendance, whose turns a test takes, and the coordinator's end of the wire."""

    def __init__(self) -> None:
        network = MemoryTransport()
        self.clock = FakeClock(100.0)
        self.hub = network.poller().bind(ADDRESS)
        self.heard = 0
        self.attendance = Attendance(ADDRESS, REPORT, network, self.clock, self._hear)

    def _hear(self) -> None:
        self.heard += 1

    def turn(self, after_s: float = 0.0) -> float:
        """Seconds until it wants the next one."""
        now = self.clock.advance(after_s)
        return self.attendance.turn(now) - now

    def said(self) -> list[NodeReport]:
        """The reports since this was asked last."""
        reports = []
        while (received := self.hub.receive()) is not None:
            reports.append(received.message)
            self._peer = received.sender
        return reports

    def hear(self, message: RunView | Refused, after_s: float = 0.0) -> float:
        self.said()
        self.hub.send(self._peer, message)
        return self.turn(after_s)


@pytest.fixture
def node() -> Node:
    here = Node()
    here.turn()
    return here


def view(seq: int = 1, run: str = "r", **what: object) -> RunView:
    return RunView(run=run, seq=seq, **what)


def test_a_report_is_repeated_often_until_it_is_answered_and_then_to_be_seen_alive(node: Node) -> None:
    assert node.said() == [REPORT]
    assert node.turn(0.2) == pytest.approx(0.05) and node.said() == []
    assert node.turn(0.05) == 0.25 and node.said() == [REPORT]
    assert node.hear(view(), 0.1) == pytest.approx(0.15), "the next one was due before the answer"
    assert node.turn(0.15) == KEEP_ALIVE_S and node.said() == [REPORT]
    assert node.turn(0.5) == 0.5 and node.said() == []


def test_a_coordinator_that_says_nothing_is_not_flooded(node: Node) -> None:
    for _ in range(8):
        assert node.turn(0.25) == 0.25
    assert node.turn(0.25) == KEEP_ALIVE_S
    assert node.hear(view(), 1.0) == KEEP_ALIVE_S
    node.attendance.tell(state="finished")
    assert node.turn() == 0.25, "it is heard again"


def test_a_change_is_told_at_once_and_answered_by_what_has_seen_it(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.hear(view(1))
    assert node.attendance.answer == view(1)
    woken: list[bool] = []
    monkeypatch.setattr(node.attendance._poller, "wake", lambda: woken.append(True))
    node.attendance.tell(state="finished", counts={"steps": 3})
    assert woken == [True]
    assert node.attendance.answer is None and node.attendance.view == view(1)
    assert node.turn() == 0.25
    (report,) = node.said()
    assert (report.state, report.counts, report.seq, report.job) == ("finished", {"steps": 3}, 2, "train")
    node.hear(view(1, waiting=1))
    assert node.attendance.answer is None
    node.hear(view(2))
    assert node.attendance.answer == view(2)


def test_only_the_last_word_about_its_own_run_counts(node: Node) -> None:
    node.hear(view(run="other"), 3.0)
    assert node.attendance.view is None and node.attendance.silent_s == 3.0
    node.hear(view(), 1.0)
    node.hub.send(node._peer, view(waiting=1))
    node.hub.send(node._peer, view(waiting=2))
    node.turn(2.0)
    assert node.attendance.view == view(waiting=2) and node.attendance.silent_s == 0.0
    assert node.heard == 3, "and nothing of another run"
    node.clock.advance(1.5)
    assert node.attendance.silent_s == 1.5


def test_a_node_that_is_refused_ends(node: Node) -> None:
    with pytest.raises(CoordinatorUnreachableError, match=f"{ADDRESS} refuses this node: no key"):
        node.hear(Refused(reason="no key"))


@pytest.fixture
def sleeps(node: Node, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Sleeping lets the time pass; meanwhile the thread hears what the coordinator says by then."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        node.turn(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    return slept


def test_it_waits_for_an_answer_to_the_present_report_that_passes(node: Node, sleeps: list[float]) -> None:
    node.hear(view(waiting=1))
    node.attendance.tell(state="member")
    node.turn()
    node.said()
    for each in (view(1, waiting=2), view(2, waiting=0), view(2, waiting=3)):
        node.hub.send(node._peer, each)
    assert node.attendance.wait(lambda heard: heard.waiting > 0, 5.0) == view(2, waiting=3)
    assert len(sleeps) == 1
    assert node.attendance.wait(lambda heard: heard.waiting > 3, 1.0) is None
    assert 1.0 <= sum(sleeps[1:]) < 1.1
    assert node.attendance.wait(lambda heard: heard.waiting == 3, 0.0) is not None, "it is there already"


def test_whoever_waits_learns_what_ended_the_thread(node: Node, sleeps: list[float]) -> None:
    node.attendance.fail(WireError("broken"))
    assert node.heard == 1
    with pytest.raises(WireError, match="broken"):
        node.attendance.wait(lambda heard: True, 5.0)
    assert sleeps == []


@pytest.mark.parametrize("answered", [True, False])
def test_what_was_said_last_is_waited_for_unless_nobody_answers(
    node: Node, monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    closed: list[bool] = []
    monkeypatch.setattr(node.attendance._link, "close", lambda at_once: closed.append(at_once))
    if answered:
        node.hear(view())
    node.attendance.leave()
    assert closed == [not answered]


def test_its_thread_reports(node: Node) -> None:
    node.attendance.start()
    try:
        node.attendance.tell(state="finished")
        deadline = time.monotonic() + 20.0
        while not (reports := node.said()) or reports[-1].state != "finished":
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        node.attendance.close()
    assert not any(each.name == "edldist-attendance" for each in threading.enumerate())
