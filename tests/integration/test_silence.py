"""A silent worker is written off; a student that was itself away does not blame its workers."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from edldist.clock import FakeClock
from edldist.student.batch.batch import OpenBatch
from edldist.student.queue.flow import Flow
from edldist.student.service.options import ServiceOptions
from edldist.student.service.service import StudentService
from edldist.wire.memory import MemoryTransport
from edldist.wire.messages import Hello, Pull, Tasks, Unknown
from tests.greetings import FINGERPRINT

pytestmark = pytest.mark.timeout(240)


class Student:
    """A student's service under a clock that moves when told, and one worker that says what a test says."""

    def __init__(self) -> None:
        self.clock = FakeClock(100.0)
        self.transport = transport = MemoryTransport()
        options = ServiceOptions(
            student="s",
            teachers=("teacher",),
            coordinator="tcp://nobody:1",
            bind="tcp://here:0",
            advertise=None,
            flow=Flow(),
            heartbeat_ttl_s=3.0,
        )
        self.service = StudentService(options, transport, self.clock, process="p", host="h", pid=os.getpid())
        self.service.start()
        self.poller = transport.poller()
        self.link = self.poller.connect(self.service.address, "w")

    def until(self, condition) -> None:
        pause = threading.Event()
        for _ in range(2000):
            if condition():
                return
            pause.wait(0.005)
        raise AssertionError("it never happened")

    def advance(self, seconds: float) -> None:
        """Let the time pass, and the service look at its workers once."""
        now = self.clock.advance(seconds)
        self.service._poller.wake()
        self.until(lambda: self.service._probing._last == now)

    def answer(self, kind):
        """The next message of a kind to the worker."""
        got = []

        def came() -> bool:
            while (received := self.link.receive()) is not None:
                got.append(received.message)
            return bool(got) and isinstance(got[-1], kind)

        self.until(came)
        return got[-1]


@pytest.fixture
def student():
    made = Student()
    made.link.send(Hello(worker="w", teacher="teacher", fingerprint=FINGERPRINT, process="p"))
    made.until(lambda: made.service.teachers() == 1)
    made.advance(0.2)
    yield made
    made.service.close()
    made.poller.close()


def test_a_worker_is_lost_when_it_is_silent_for_longer_than_its_time_to_live(student):
    for _ in range(13):
        student.advance(0.2)
    assert student.service.teachers() == 1
    for _ in range(4):
        student.advance(0.2)
    student.until(lambda: student.service.teachers() == 0)


def test_a_worker_whose_connection_broke_is_called_back_before_it_says_a_word(student):
    student.transport.sever(student.service.address, "w")
    student.advance(1.5)
    student.until(lambda: student.service.teachers() == 0)
    student.link = student.poller.connect(student.service.address, "w")
    student.advance(0.2)
    student.answer(Unknown)
    student.advance(0.2)
    assert student.link.receive() is None


def test_an_unreachable_worker_is_called_for_no_longer_than_it_would_wait(student):
    student.transport.sever(student.service.address, "w")
    student.advance(1.5)
    student.until(lambda: student.service.teachers() == 0)
    for _ in range(20):
        student.advance(0.2)
    assert not student.service._peers._unreachable


def test_any_word_of_a_worker_is_a_sign_of_life(student):
    for _ in range(25):
        student.link.send(Unknown())
        student.until(lambda: not student.service._hub._inbox)
        student.advance(0.2)
    assert student.service.teachers() == 1


def test_time_in_which_the_student_was_stopped_is_not_its_workers_silence(student):
    student.advance(60.0)
    student.advance(0.2)
    assert student.service.teachers() == 1
    for _ in range(17):
        student.advance(0.2)
    student.until(lambda: student.service.teachers() == 0)


def test_a_worker_that_greets_anew_gets_its_tasks_again_without_blame(student):
    student.service.offer(OpenBatch(None, {"x": torch.zeros(4)}, 4))
    for seq in range(1, 5):
        student.link.send(Hello(worker="w", teacher="teacher", fingerprint=FINGERPRINT, process="p"))
        student.link.send(Pull(seq=seq, room=4))
        (task,) = student.answer(Tasks).groups[0].leases
        assert not task.own_pass
    assert student.service.stats()["requeued"] == 3


def test_a_worker_that_was_started_anew_before_its_end_was_noticed_left_a_suspicion(student):
    """Supervisors are quick: three processes of one name that held the task and ended accuse it."""
    student.service.offer(OpenBatch(None, {"x": torch.zeros(4)}, 4))
    alone = []
    for life in range(3):
        student.link.send(Hello(worker="w", teacher="teacher", fingerprint=FINGERPRINT, process=f"p{life}"))
        student.link.send(Pull(seq=1, room=4))
        (lease,) = student.answer(Tasks).groups[0].leases
        alone.append(lease.own_pass)
    assert alone == [False, False, True]


@pytest.mark.parametrize("same_process", [True, False])
def test_only_a_worker_that_proves_alive_acquits_the_task_that_it_held(student, same_process):
    """A connection that breaks again and again accuses no task; processes that die one by one do."""
    student.service.offer(OpenBatch(None, {"x": torch.zeros(4)}, 4))
    alone = []
    for life in range(3):
        process = "p" if same_process else f"p{life}"
        student.link = student.poller.connect(student.service.address, "w")
        student.link.send(Hello(worker="w", teacher="teacher", fingerprint=FINGERPRINT, process=process))
        student.link.send(Pull(seq=1, room=4))
        (task,) = student.answer(Tasks).groups[0].leases
        alone.append(task.own_pass)
        student.transport.sever(student.service.address, "w")
        student.advance(0.2)
        student.until(lambda: student.service.teachers() == 0)
    assert alone == [False, False, not same_process]
