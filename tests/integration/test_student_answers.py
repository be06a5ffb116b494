"""What a student answers to workers: to pulls, to failures, to silence."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest
import torch

from edldist.clock import FakeClock
from edldist.labels.fingerprint import Fingerprint
from edldist.student.batch.batch import OpenBatch
from edldist.student.queue.flow import Flow
from edldist.student.service.options import ServiceOptions
from edldist.student.service.service import StudentService
from edldist.wire.memory import MemoryTransport
from edldist.wire.messages import (
    Failure,
    Hello,
    Idle,
    Labels,
    Lease,
    LeaseRows,
    Ping,
    Pong,
    Pull,
    Refused,
    Result,
    Tasks,
    TensorSpec,
    Wake,
    Welcome,
)
from tests.greetings import FINGERPRINT, fingerprint

pytestmark = pytest.mark.timeout(240)


class Worker:
    """One end of a link that says what a test says."""

    def __init__(self, poller, address: str, name: str, its: Fingerprint = FINGERPRINT) -> None:
        self.link = poller.connect(address, name)
        self.link.send(Hello(worker=name, teacher="teacher", fingerprint=its, process="p"))
        self.answer = self.hear((Welcome, Refused))

    def label(
        self, lease: int, pull: int, samples: int = 4, output: str = "logits", version: str = ""
    ) -> None:
        """Label a task of four samples, as so many, and pull more in the same message."""
        specs = [TensorSpec(name=output, dtype="float32", shape=[samples])]
        row = LeaseRows(lease=lease, count=samples)
        result = Result(rows=[row], version=version, compute_s=0.0, tensors=specs)
        frame = torch.arange(samples, dtype=torch.float32).numpy().tobytes()
        self.link.send(Labels(results=[result], pull=Pull(seq=pull, room=4)), [frame])

    def hear(self, kind, suits: Callable = lambda message: True):
        """The next message of a kind that suits."""
        pause = threading.Event()
        for _ in range(2000):
            while (received := self.link.receive()) is not None:
                if isinstance(received.message, kind) and suits(received.message):
                    return received.message
            pause.wait(0.005)
        raise AssertionError(f"no {kind} came")


@pytest.fixture
def make():
    """Start a student with the given options, under a clock that stands; everything ends at the end."""
    started = []

    def start(**options):
        transport, clock = MemoryTransport(), FakeClock(100.0)
        settings = ServiceOptions(
            student="s",
            teachers=("teacher",),
            coordinator="tcp://nobody:1",
            bind="tcp://here:0",
            advertise=None,
            flow=Flow(),
            **options,
        )
        service = StudentService(settings, transport, clock, process="p", host="h", pid=os.getpid())
        service.start()
        started.append((service, transport.poller()))
        return service, clock, started[-1][1]

    yield start
    for service, poller in started:
        service.close()
        poller.close()


def offer(service: StudentService) -> None:
    service.offer(OpenBatch(None, {"x": torch.zeros(4)}, 4))


def take(service: StudentService, worker: Worker, pull: int) -> Lease:
    """Offer a batch of one task, which a worker pulls."""
    offer(service)
    worker.link.send(Pull(seq=pull, room=4))
    (task,) = worker.hear(Tasks).groups[0].leases
    return task


def test_a_pull_that_rides_on_labels_is_answered_once_they_are_placed(make):
    service, _, poller = make()
    worker = Worker(poller, service.address, "w")
    offer(service)
    offer(service)
    worker.link.send(Pull(seq=1, room=4))
    (task,) = worker.hear(Tasks).groups[0].leases
    worker.label(task.id, pull=2)
    tasks = worker.hear((Tasks, Idle))
    assert tasks.seq == 2 and tasks.buffered == 1
    worker.label(tasks.groups[0].leases[0].id, pull=3)
    assert worker.hear((Tasks, Idle)) == Idle(seq=3, buffered=2)
    labels = service.delivery.deliver().labels()["teacher"]
    assert labels["logits"].tolist() == [0, 1, 2, 3]


def test_a_pull_on_labels_that_quarantine_their_worker_is_answered_with_the_reason(make):
    service, _, poller = make()
    Worker(poller, service.address, "well")
    sick = Worker(poller, service.address, "sick")
    for seq in range(1, 5):
        task = take(service, sick, seq)
        sick.label(task.id, pull=10 + seq, samples=3)
    told = sick.hear(Idle, lambda idle: idle.seq == 14)
    assert "3 samples were labelled of a task of 4" in told.quarantine


def test_a_pull_of_a_worker_that_cannot_be_reached_any_more_harms_nobody(make):
    service, _, poller = make()
    well, sick = Worker(poller, service.address, "well"), Worker(poller, service.address, "sick")
    for seq in range(1, 5):
        task = take(service, sick, seq)
        if seq < 4:
            sick.link.send(Failure(leases=[task.id], error="boom"))
    with service.delivery._lock:
        sick.label(task.id, pull=5, samples=3)
        poller._network.sever(service.address, "sick")
    well.link.send(Pull(seq=1, room=4))
    assert well.hear((Tasks, Idle)).seq == 1
    assert len(service.delivery.leases_of("well")) == 1


def test_a_worker_that_fails_while_it_sleeps_is_told_that_it_is_quarantined(make):
    service, _, poller = make()
    Worker(poller, service.address, "well")
    sick = Worker(poller, service.address, "sick")
    for seq in range(1, 5):
        task = take(service, sick, 2 * seq)
        sick.link.send(Pull(seq=2 * seq + 1, room=4))
        assert sick.hear(Idle).quarantine == ""
        sick.link.send(Failure(leases=[task.id], error="boom"))
    told = sick.hear(Idle, lambda idle: idle.quarantine != "")
    assert "4 failures in a row, the last one: boom" in told.quarantine
    assert told.seq == 9, "it answers the last pull"


def test_a_failure_of_the_only_worker_in_good_standing_is_tried_again_at_once(make):
    service, _, poller = make()
    well, sick = Worker(poller, service.address, "well"), Worker(poller, service.address, "sick")
    for seq in range(1, 5):
        task = take(service, sick, seq)
        sick.link.send(Failure(leases=[task.id], error="boom"))
    sick.hear(Idle, lambda idle: idle.quarantine != "")
    offer(service)
    for seq in range(1, 6):
        well.link.send(Pull(seq=seq, room=4))
        (task,) = well.hear(Tasks).groups[0].leases
    well.link.send(Failure(leases=[task.id], error="out of luck"))
    well.link.send(Pull(seq=6, room=4))
    assert well.hear((Tasks, Idle)).seq == 6
    assert service.stats()["failed"] == 5
    # The sick one is out for half a minute: the loop would stand for as long.
    assert len(service.delivery.leases_of("well")) == 5


def test_a_lost_task_is_found_although_answers_to_pings_take_longer_than_the_next_ping(make):
    service, clock, poller = make()
    worker = Worker(poller, service.address, "w")
    offer(service)
    worker.link.send(Pull(seq=1, room=4))
    worker.hear(Tasks)  # as if it had been lost on the way
    for seq in (1, 2, 3):
        clock.advance(0.11)
        service._poller.wake()
        worker.hear(Ping, lambda ping, seq=seq: ping.seq == seq)
    worker.link.send(Pong(seq=2, held=[], pulled=1, asleep=False))
    assert worker.hear(Idle).seq == 1
    assert service.stats()["requeued"] == 1


def test_idle_workers_are_pinged_several_times_within_the_time_to_live(make):
    service, clock, poller = make(heartbeat_ttl_s=0.9)
    worker = Worker(poller, service.address, "w")
    assert worker.answer.ping_interval_s <= 0.3
    first = None
    for _ in range(4):
        clock.advance(0.11)
        service._poller.wake()
    first = worker.hear(Ping)
    assert first.seq == 1


@pytest.mark.parametrize("field", ["model", "weights", "version"])
def test_a_worker_that_greets_as_another_teacher_is_refused_with_both_sides(make, field):
    service, _, poller = make()
    first = Worker(poller, service.address, "first")
    other = Worker(poller, service.address, "other", fingerprint(**{field: "another"}))
    assert isinstance(other.answer, Refused) and other.answer.incompatible
    reason = other.answer.reason
    assert "worker other is not like worker first, by which this student knows teacher 'teacher'" in reason
    assert f": {field} another instead of " in reason
    first.label(take(service, first, 1).id, pull=2)
    assert service.teachers() == 1


def test_a_worker_whose_first_labels_have_other_outputs_is_refused_and_nobody_is_to_blame(make):
    service, _, poller = make()
    first, second = Worker(poller, service.address, "first"), Worker(poller, service.address, "second")
    first.label(take(service, first, 1).id, pull=2)
    first.hear(Idle)
    second.label(take(service, second, 1).id, pull=2, output="scores")
    refused = second.hear(Refused)
    assert refused.incompatible and "outputs scores instead of logits" in refused.reason
    first.hear(Wake)
    first.link.send(Pull(seq=3, room=4))
    assert first.hear(Tasks).groups[0].leases[0].samples == 4
    assert service.stats()["failed"] == 0


@pytest.mark.parametrize(
    ("change", "words"), [({"output": "scores"}, "outputs scores"), ({"version": "2"}, "version 2")]
)
def test_labels_of_a_trusted_worker_that_are_none_of_its_group_fail_their_task(make, change, words):
    service, _, poller = make()
    worker, _ = Worker(poller, service.address, "w"), Worker(poller, service.address, "peer")
    worker.label(take(service, worker, 1).id, pull=2)
    worker.hear(Idle)
    for seq in range(3, 7):
        worker.label(take(service, worker, seq).id, pull=10 + seq, **change)
    assert words in worker.hear(Idle, lambda idle: idle.quarantine).quarantine
    assert service.stats()["failed"] and service.teachers() == 2


def test_labels_of_no_open_lease_lay_down_nothing(make):
    service, _, poller = make()
    worker = Worker(poller, service.address, "w")
    worker.label(999, pull=1, output="nonsense")
    worker.hear(Idle)
    worker.label(take(service, worker, 2).id, pull=3)
    worker.hear(Idle, lambda idle: idle.seq == 3)
    assert list(service.delivery.deliver().labels()["teacher"]) == ["logits"]
