"""A group that lost a rank: the coordinator says so, and the rank's handler answers."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from collections.abc import Iterator

import pytest

from edldist.clock import FakeClock
from edldist.lifecycle.group_change import EXIT_REGROUP, GroupChanged
from edldist.student.queue.flow import Flow
from edldist.student.service.options import ServiceOptions
from edldist.student.service.service import StudentService
from edldist.wire.memory import MemoryTransport
from edldist.wire.messages import Message, Register, Regroup
from edldist.wire.transport import Hub, Poller

pytestmark = pytest.mark.timeout(240)


class Rank:
    """A student's service that registers with a coordinator of this test."""

    def __init__(self) -> None:
        transport = MemoryTransport()
        self.poller: Poller = transport.poller()
        self.hub: Hub = self.poller.bind("tcp://coordinator:1")
        self.changes: queue.Queue[GroupChanged] = queue.Queue()
        options = ServiceOptions(
            *("s", ("teacher",), self.hub.address, "tcp://here:0", None, Flow()), group="job@h:1"
        )
        self.service = StudentService(
            options, transport, FakeClock(100.0), "p", "h", os.getpid(), on_group_change=self.changes.put
        )
        self.service.start()
        self.peer, self.registration = self._registered()

    def _registered(self) -> tuple[bytes, Register]:
        for _ in range(1000):
            self.poller.wait(0.01)
            while (received := self.hub.receive()) is not None:
                if isinstance(received.message, Register):
                    return received.sender, received.message
        raise AssertionError("the rank did not register")

    def tell(self, message: Message) -> None:
        self.hub.send(self.peer, message)


@pytest.fixture
def rank() -> Iterator[Rank]:
    made = Rank()
    yield made
    made.service.close()
    made.poller.close()


def test_the_handler_is_told_of_a_change_and_the_rank_goes_on(rank: Rank) -> None:
    assert rank.registration.group == "job@h:1"
    for number in range(2):
        rank.tell(Regroup(generation="job@h:1", lost="s-2", reason=f"loss {number}"))
        assert rank.changes.get(timeout=10) == GroupChanged("job@h:1", f"loss {number}")


def test_a_change_of_another_group_is_none_of_this_rank(rank: Rank) -> None:
    rank.tell(Regroup(generation="job@h:0", lost="s-2", reason="an old story"))
    rank.tell(Regroup(generation="job@h:1", lost="s-2", reason="news"))
    assert rank.changes.get(timeout=10).reason == "news"
    assert rank.changes.empty()


def test_without_another_answer_the_process_leaves_with_the_code_for_regrouping() -> None:
    script = (
        "import atexit\n"
        "from edldist.lifecycle.group_change import GroupChanged, leave_group\n"
        "atexit.register(print, 'exit handlers ran')\n"
        "print('before', end='')\n"
        "leave_group(GroupChanged('job@h:1', 'rank s-2 has been silent for 3 s'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=150)
    assert (done.returncode, done.stdout) == (EXIT_REGROUP, "before")
    assert "rank s-2 has been silent for 3 s: leaving" in done.stderr
