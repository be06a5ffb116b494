"""Every service is a ``turn(now)``: called by hand on a standing clock, a whole job runs without a thread."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from edldist.clock import FakeClock, SystemClock
from edldist.coordinator.options import CoordinatorOptions
from edldist.coordinator.server import Coordinator
from edldist.errors import CoordinatorUnreachableError, LoaderClosedError
from edldist.student.batch.batch import OpenBatch
from edldist.student.queue.flow import Flow
from edldist.student.service.options import ServiceOptions
from edldist.student.service.service import StudentService
from edldist.teacher.model.teacher import Teacher
from edldist.teacher.worker import TeacherWorker, WorkerOptions
from edldist.wire.memory import MemoryTransport
from edldist.wire.turns import ServiceThread

COORDINATOR = "tcp://coordinator:1"


def student(transport, clock, **options) -> StudentService:
    settings = ServiceOptions(
        student="s",
        teachers=("teacher",),
        coordinator=COORDINATOR,
        bind="tcp://student:0",
        advertise=None,
        flow=Flow(),
        **options,
    )
    return StudentService(settings, transport, clock, process="p", host="h", pid=os.getpid(), first_lease=7)


def test_a_job_runs_without_a_thread_when_somebody_calls_the_turns():
    transport, clock = MemoryTransport(), FakeClock(100.0)
    before = threading.active_count()
    coordinator = Coordinator(
        CoordinatorOptions(bind=COORDINATOR, http=None), transport, clock, incarnation="one"
    )
    coordinator.open()
    worker = TeacherWorker(
        WorkerOptions(coordinator=COORDINATOR, model="tests.models:identify", worker_id="w"),
        Teacher("tests.models:identify", torch.device("cpu")),
        transport,
        clock,
    )
    service = student(transport, clock)
    service.offer(OpenBatch("first", {"id": torch.arange(4)}, 4))
    due = 0.0
    for _ in range(50):
        now = clock.advance(0.02)
        due = min(coordinator.turn(now), worker.service.turn(now), worker.turn(now), service.turn(now))
    assert service.delivery.wait(0.0, reading=False)
    labels = service.delivery.deliver().labels()["teacher"]
    assert labels["logits"].flatten().tolist() == [0, 1, 1, 3, 2, 5, 3, 7]
    assert due > clock.monotonic(), "nothing is left to do, and a service asks for a turn at once"
    worker.drain()
    for _ in range(5):
        now = clock.advance(0.02)
        worker.service.turn(now)
        worker.turn(now)
    assert worker.finished
    worker.close("it was asked to leave")
    service.turn(clock.advance(0.02))
    assert service.teachers() == 0
    service.close()
    coordinator.close()
    assert threading.active_count() == before


def test_a_service_that_fails_in_its_thread_says_so_to_those_who_wait():
    transport, clock = MemoryTransport(), FakeClock(100.0)
    service = student(transport, clock, connect_timeout_s=1.0)
    clock.advance(5.0)
    service.start()
    with pytest.raises(CoordinatorUnreachableError):
        service.delivery.wait(10.0, reading=False)
    service.close()


def test_closing_what_never_began_leaves_in_the_thread_that_closes():
    service = student(MemoryTransport(), FakeClock(100.0))
    service.close()
    with pytest.raises(LoaderClosedError):
        service.delivery.wait(0.0, reading=False)


def test_a_turn_is_called_when_it_is_due_and_when_the_poller_has_something():
    transport = MemoryTransport()
    poller = transport.poller()
    turns: list[float] = []
    again = threading.Semaphore(0)

    class Counting:
        left = False

        def turn(self, now: float) -> float:
            turns.append(now)
            again.release()
            return now + (0.01 if len(turns) < 3 else 3600.0)

        def leave(self) -> None:
            self.left = True

        def fail(self, error: BaseException) -> None:
            raise AssertionError(error)

    service = Counting()
    thread = ServiceThread("counting", service, poller, SystemClock())
    thread.start()
    for _ in range(3):
        assert again.acquire(timeout=10), "a turn that was due was not called"
    poller.wake()
    assert again.acquire(timeout=10), "a wake did not cause a turn"
    thread.close()
    assert service.left
