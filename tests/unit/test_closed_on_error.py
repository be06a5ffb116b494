"""Whoever opens sockets and then cannot be made leaves none of them open."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from edldist.clock import SystemClock
from edldist.meeting.attendance import Attendance
from edldist.observe.reporter import Reporter
from edldist.student.queue.flow import Flow
from edldist.student.service.options import ServiceOptions
from edldist.student.service.service import StudentService
from edldist.teacher.service.identity import TeacherIdentity
from edldist.teacher.service.service import TeacherService
from edldist.wire.messages import GroupNode, NodeReport
from edldist.wire.query import StatusClient
from edldist.wire.trace_query import TraceClient
from edldist.wire.transport import closed_on_error
from tests.greetings import FINGERPRINT

COORDINATOR = "tcp://127.0.0.1:7"
IDENTITY = ("t1", "big", COORDINATOR, 4, FINGERPRINT, "p", "here", 1, "cpu", "cpu", 60.0)


class Counting:
    """A transport whose pollers open nothing, and fail where they are told to."""

    def __init__(self, fails: str = "") -> None:
        self._fails = fails
        self.opened = 0
        self.closed = 0

    def poller(self) -> Any:
        self.opened += 1
        return self

    def _open(self, kind: str) -> Any:
        if self._fails == kind:
            raise OSError(f"no {kind}")
        return self

    def bind(self, address: str) -> Any:
        return self._open("hub")

    def connect(self, address: str, identity: str, to: str = "coordinator") -> Any:
        return self._open("link")

    def close(self, at_once: bool = False) -> None:
        self.closed += 1

    @property
    def address(self) -> str:
        return "tcp://127.0.0.1:8"


def student(transport: Any) -> object:
    options = ServiceOptions("s", ("big",), COORDINATOR, "tcp://127.0.0.1:0", None, Flow())
    return StudentService(options, transport, SystemClock(), "p", "h", 1)


def node(transport: Any) -> object:
    here = GroupNode(process="p", host="h", port=9, ranks=1)
    report = NodeReport(run="r", job="", node=here, least=1, most=1, state="joining", seq=1)
    return Attendance(COORDINATOR, report, transport)


MADE: dict[str, Callable[[Any], object]] = {
    "edldist.wire.query": lambda transport: StatusClient(COORDINATOR, transport),
    "edldist.wire.trace_query": lambda transport: TraceClient(COORDINATOR, transport),
    "edldist.observe.reporter": lambda transport: Reporter(COORDINATOR, 0, transport),
    "edldist.teacher.service.service": lambda transport: TeacherService(
        TeacherIdentity(*IDENTITY), transport, SystemClock()
    ),
    "edldist.student.service.service": student,
    "edldist.meeting.attendance": node,
}


@pytest.mark.parametrize("module", MADE)
def test_a_link_that_cannot_be_opened_leaves_nothing_open(module: str) -> None:
    transport = Counting("link")
    with pytest.raises(OSError, match="no link"):
        MADE[module](transport)
    assert transport.opened == transport.closed == 1


@pytest.mark.parametrize("module", [each for each in MADE if "query" not in each])
def test_nor_does_what_fails_after_it(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **settings: object) -> None:
        raise RuntimeError("no thread to be had")

    what = "socket.socketpair" if module.endswith("reporter") else "ServiceThread"
    monkeypatch.setattr(f"{module}.{what}", fails)
    transport = Counting()
    with pytest.raises(RuntimeError, match="no thread"):
        MADE[module](transport)
    assert transport.opened == transport.closed == 1


def test_nor_does_a_reporter_whose_thread_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    transport = Counting()
    reporter = Reporter(COORDINATOR, 0, transport)
    monkeypatch.setattr(threading.Thread, "start", fails)
    with pytest.raises(RuntimeError, match="new thread"):
        reporter.start()
    assert transport.opened == transport.closed == 1


def test_what_could_be_made_stays_open() -> None:
    transport = Counting()
    with closed_on_error(transport.poller()) as poller:
        assert poller is transport
    assert transport.closed == 0
