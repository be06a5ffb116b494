"""A worker that is told to leave while its model hangs: nothing that it holds waits for it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from edldist.wire.messages import (
    Goodbye,
    Hello,
    Lease,
    LeaseGroup,
    Links,
    Message,
    Peer,
    Pull,
    Register,
    Registered,
    Return,
    Tasks,
    TensorSpec,
    Welcome,
)
from edldist.wire.transport import Hub, Sender
from edldist.wire.zmq.transport import ZmqTransport
from edldist_launch.plan.commands import own_command

pytestmark = pytest.mark.timeout(240)

MODEL = """
import ctypes, pathlib

def hang(x=None):
    pathlib.Path("begun").touch()
    while True:
        ctypes.CDLL(None).sleep(50)

def hangs():
    return hang
"""


class Counterpart:
    """A coordinator and a student that a test plays, and a real worker process between them."""

    def __init__(self, folder: Path) -> None:
        (folder / "model.py").write_text(MODEL)
        self.folder = folder
        self.poller = ZmqTransport().poller()
        self.coordinator = self.poller.bind("tcp://127.0.0.1:0")
        self.student = self.poller.bind("tcp://127.0.0.1:0")
        self.inboxes: dict[Hub, deque[Message]] = {self.coordinator: deque(), self.student: deque()}
        self.process: subprocess.Popen[bytes]
        self.worker: Sender

    def start(self, factory: str, drain_s: str) -> None:
        self.process = subprocess.Popen(
            own_command(
                *("teacher", "--coordinator", self.coordinator.address, "--id", "w", "--device", "cpu"),
                *("--model", f"model:{factory}", "--batch-size", "2", "--drain-s", drain_s),
            ),
            cwd=self.folder,
            env={key: value for key, value in os.environ.items() if not key.startswith("EDLDIST_")},
        )

    def meet(self) -> None:
        self.heard(self.coordinator, Register)
        self.coordinator.send(
            self.worker, Registered(incarnation="one", heartbeat_interval_s=1.0, heartbeat_ttl_s=3.0)
        )
        student = Peer(id="s", address=self.student.address)
        self.coordinator.send(self.worker, Links(students=[student], complete=True))
        self.heard(self.student, Hello)
        self.student.send(
            self.worker,
            Welcome(student="s", ping_interval_s=1.0, heartbeat_ttl_s=60.0, max_frame_bytes=1 << 20),
        )

    def give(self, *leases: int) -> None:
        """Answer a pull with one task of two samples for each lease."""
        pull = self.heard(self.student, Pull)
        spec = TensorSpec(name="x", dtype="float32", shape=[2])
        groups = [
            LeaseGroup(leases=[Lease(id=lease, samples=2, cost=2, own_pass=False)], tensors=[spec])
            for lease in leases
        ]
        self.student.send(
            self.worker, Tasks(seq=pull.seq, groups=groups, buffered=0), [bytes(8)] * len(leases)
        )

    def heard(self, hub, kind):
        """The next message of a kind that a hub gets."""
        until = time.monotonic() + 90
        while time.monotonic() < until:
            self.poller.wait(0.1)
            for each, inbox in self.inboxes.items():
                while (received := each.receive()) is not None:
                    inbox.append(received.message)
                    if isinstance(received.message, Register):
                        self.worker = received.sender
            inbox = self.inboxes[hub]
            while inbox:
                if isinstance(message := inbox.popleft(), kind):
                    return message
        raise AssertionError(f"no {kind.__name__} came")

    def until_begun(self) -> None:
        pause = threading.Event()
        while not (self.folder / "begun").exists():
            assert self.process.poll() is None
            pause.wait(0.01)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.poller.close()


@pytest.fixture
def counterpart(tmp_path: Path) -> Iterator[Counterpart]:
    made = Counterpart(tmp_path)
    yield made
    made.close()


@pytest.mark.slow
def test_a_hanging_model_keeps_neither_what_has_not_begun_nor_its_process(counterpart: Counterpart) -> None:
    counterpart.start("hangs", drain_s="1")
    counterpart.meet()
    counterpart.give(1)
    counterpart.until_begun()
    counterpart.give(2, 3)
    counterpart.process.send_signal(signal.SIGTERM)
    back = counterpart.heard(counterpart.student, Return)
    assert counterpart.process.poll() is None
    assert sorted(back.leases) == [2, 3]
    assert counterpart.heard(counterpart.student, Return).leases == [1], "when its time is up"
    assert "its model did not end" in counterpart.heard(counterpart.student, Goodbye).reason
    counterpart.heard(counterpart.coordinator, Goodbye)
    assert counterpart.process.wait(20) == 143


@pytest.mark.slow
def test_a_person_who_insists_does_not_wait_for_a_model_that_hangs(counterpart: Counterpart) -> None:
    counterpart.start("hangs", drain_s="50")
    counterpart.meet()
    counterpart.give(1)
    counterpart.until_begun()
    counterpart.give(2)
    counterpart.process.send_signal(signal.SIGTERM)
    assert counterpart.heard(counterpart.student, Return).leases == [2]
    counterpart.process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        counterpart.process.wait(1.2)  # as a person would
    counterpart.process.send_signal(signal.SIGINT)
    assert counterpart.process.wait(20) == 130


def test_a_worker_that_is_still_loading_its_model_leaves_at_once(counterpart: Counterpart) -> None:
    counterpart.start("hang", drain_s="50")
    counterpart.until_begun()
    counterpart.process.send_signal(signal.SIGTERM)
    assert counterpart.process.wait(20) == 143
