"""Whom a worker serves: what the coordinator knows counts, and what the worker hears itself."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from edldist.clock import FakeClock
from edldist.errors import IncompatibleError, ProtocolVersionError
from edldist.teacher.service.identity import TeacherIdentity
from edldist.teacher.service.service import TeacherService
from edldist.teacher.tasks import Answer, Outcome
from edldist.wire.memory import MemoryTransport
from edldist.wire.messages import (
    Failure,
    Goodbye,
    Heartbeat,
    Hello,
    Labels,
    Lease,
    LeaseGroup,
    LeaseRows,
    Links,
    Peer,
    Ping,
    Pong,
    Pull,
    Refused,
    Register,
    Registered,
    Result,
    Return,
    Tasks,
    TensorSpec,
    Unknown,
    Wake,
    Welcome,
)
from edldist.wire.process import route_of
from edldist.wire.transport import Sender
from tests.greetings import FINGERPRINT

pytestmark = pytest.mark.timeout(240)

TTL_S = 3.0
STUDENT = Peer(id="s", address="tcp://student:1")
WORKER = Sender(route_of("w", "p").encode())
WELCOME = Welcome(student="s", ping_interval_s=1.0, heartbeat_ttl_s=TTL_S, max_frame_bytes=1 << 20)


class Party:
    """A worker under a clock that moves when told, between a coordinator and a student that a test plays."""

    def __init__(self) -> None:
        self.clock = FakeClock(100.0)
        self.transport = transport = MemoryTransport()
        self.poller = transport.poller()
        self.coordinator = self.poller.bind("tcp://coordinator:1")
        self.student = self.poller.bind(STUDENT.address)
        identity = TeacherIdentity(
            worker="w",
            teacher="teacher",
            coordinator="tcp://coordinator:1",
            batch_size=4,
            fingerprint=FINGERPRINT,
            process="p",
            host="h",
            pid=1,
            device="cpu",
            device_type="cpu",
            connect_timeout_s=300.0,
        )
        self.vouched: list[tuple[list[str], float]] = []
        self.service = TeacherService(
            identity,
            transport,
            self.clock,
            alive=lambda addresses, ttl_s: self.vouched.append((list(addresses), ttl_s)),
        )
        self.service.start()
        self.heard(self.coordinator, Register)
        self.order(Registered(incarnation="one", heartbeat_interval_s=1.0, heartbeat_ttl_s=TTL_S))
        self.order(Links(students=[STUDENT], complete=True))
        self.heard(self.student, Hello)
        self.say(WELCOME)
        self.until(lambda: self.serving)

    def order(self, message) -> None:
        self.coordinator.send(WORKER, message)

    def speak_otherwise(self, address: str) -> None:
        """The coordinator or the student answers as one of another revision does."""
        assert self.transport._to_link(address, WORKER.route, [b"ED\x01\xc0"])

    def say(self, message, frames=()) -> None:
        self.student.send(WORKER, message, frames)

    @property
    def serving(self) -> bool:
        known = self.service._students.get("s")
        return known is not None and known.serving

    def until(self, condition: Callable[[], object]) -> None:
        pause = threading.Event()
        for _ in range(2000):
            if condition():
                return
            pause.wait(0.005)
        raise AssertionError("it never happened")

    def heard(self, hub, kind):
        """The next message of a kind that a hub gets."""
        found = []

        def came() -> bool:
            while not found and (received := hub.receive()) is not None:
                found.extend([received.message] if isinstance(received.message, kind) else [])
            return bool(found)

        self.until(came)
        return found[0]

    def advance(self, seconds: float) -> None:
        """Let the time pass; the worker has taken in all that was said before, and acted on it."""
        for _ in range(round(seconds) + 1):
            self.stand_still(1.0)

    def stand_still(self, seconds: float) -> None:
        """Let the time pass at once, as for a process that was stopped meanwhile."""
        self.clock.advance(seconds)
        self.service._poller.wake()
        self.heard(self.coordinator, Heartbeat)


@pytest.fixture
def party():
    made = Party()
    yield made
    made.service.close("the test is over")
    made.poller.close()


def test_who_vouches_for_a_worker_knows_of_a_student_before_it_is_asked_for_tasks(party: Party) -> None:
    """The first pass may be the longest, and keep the worker from saying so."""
    party.heard(party.student, Pull)
    assert party.vouched[-1] == (["tcp://coordinator:1", STUDENT.address], TTL_S)


def test_the_next_pull_rides_on_the_labels_of_the_last(party: Party) -> None:
    pulls = []

    def heard(kind):
        found = []

        def came() -> bool:
            while not found and (received := party.student.receive()) is not None:
                if isinstance(received.message, Pull):
                    pulls.append(received.message)
                found.extend([received.message] if isinstance(received.message, kind) else [])
            return bool(found)

        party.until(came)
        return found[0]

    spec = TensorSpec(name="x", dtype="float32", shape=[4])
    pull = heard(Pull)
    for lease in range(1, 4):
        group = LeaseGroup(leases=[Lease(id=lease, samples=4, cost=4, own_pass=False)], tensors=[spec])
        party.student.send(WORKER, Tasks(seq=pull.seq, groups=[group], buffered=0), [bytes(16)])
        if lease == 1:
            pull = heard(Pull)  # the room of a second turn
            group = LeaseGroup(leases=[Lease(id=9, samples=4, cost=4, own_pass=False)], tensors=[spec])
            party.student.send(WORKER, Tasks(seq=pull.seq, groups=[group], buffered=0), [bytes(16)])
        party.service.await_tasks(5.0)
        tasks = party.service.take()
        result = Result(
            rows=[LeaseRows(lease=task.lease, count=4) for task in tasks],
            version="",
            compute_s=1.0,
            tensors=[spec],
        )
        party.service.answer(Outcome([Answer(tasks, result, [memoryview(bytes(16))])]))
        labels = heard(Labels)
        assert labels.pull is not None and labels.pull.seq == pull.seq + 1
        pull = labels.pull
    assert [pull.seq for pull in pulls] == [1, 2], "all others rode"


@pytest.mark.parametrize("nbytes, messages", [(16, [2]), (1 << 20, [1, 1])])
def test_small_labels_of_several_passes_travel_together_and_large_ones_do_not_wait_for_others(
    party: Party, nbytes: int, messages: list[int]
) -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=[4])
    passes = []
    for lease in (1, 2):
        pull = party.heard(party.student, Pull)
        group = LeaseGroup(leases=[Lease(id=lease, samples=4, cost=4, own_pass=False)], tensors=[spec])
        party.say(Tasks(seq=pull.seq, groups=[group], buffered=0), [bytes(16)])
        party.service.await_tasks(5.0)
        tasks = party.service.take()
        rows = [LeaseRows(lease=lease, count=4)]
        labels = TensorSpec(name="y", dtype="uint8", shape=[4, nbytes // 4])
        result = Result(rows=rows, version="", compute_s=1.0, tensors=[labels])
        passes.append(Outcome([Answer(tasks, result, [memoryview(bytes(nbytes))])]))
    for each in passes:  # both are there before a turn looks
        party.service._outbox.put(each)
    party.service._poller.wake()
    came = [party.heard(party.student, Labels) for _ in messages]
    assert [len(labels.results) for labels in came] == messages
    assert came[0].pull is not None, "it asks for more as soon as there is room"


def test_a_student_that_only_the_coordinator_lost_is_served_on_until_it_is_silent(party: Party) -> None:
    party.order(Links(students=[], complete=True))
    for _ in range(4):
        party.say(Wake(buffered=0))
        party.advance(1.0)
        assert party.serving
    party.advance(TTL_S)
    party.until(lambda: not party.service._students)


def test_a_student_that_the_coordinator_found_again_may_be_silent_for_a_while(party: Party) -> None:
    party.order(Links(students=[], complete=True))
    party.say(Wake(buffered=0))
    party.advance(1.0)
    party.order(Links(students=[STUDENT], complete=True))
    party.advance(TTL_S + 1.0)
    party.heard(party.student, Hello)
    assert "s" in party.service._students


def test_a_student_that_is_silent_is_greeted_by_a_new_connection(party: Party) -> None:
    """The old one may be broken and nobody have said so: it would swallow the greeting."""
    party.transport.sever(STUDENT.address, WORKER.route.decode())
    party.advance(TTL_S + 1.0)
    party.heard(party.student, Hello)
    party.say(WELCOME)
    party.until(lambda: party.serving)


def test_a_worker_that_stood_still_takes_that_for_no_silence_of_its_student(party: Party) -> None:
    """What it was told meanwhile still waits; an answer that is half sent goes on where it was."""
    party.say(Wake(buffered=0))
    party.advance(1.0)
    link = party.service._students["s"].link
    party.stand_still(10 * TTL_S)
    party.stand_still(1.0)
    assert party.serving and party.service._students["s"].link is link
    party.advance(TTL_S)
    party.heard(party.student, Hello)
    assert party.service._students["s"].link is not link, "now it is silent"


def test_a_student_that_others_serve_is_left_at_once(party: Party) -> None:
    party.say(Wake(buffered=0))
    party.order(Links(students=[], complete=True, released=["s"]))
    party.heard(party.student, Goodbye)
    party.until(lambda: not party.service._students)


def ended_by(party: Party) -> BaseException:
    """What ended the service, as the compute thread sees it."""
    for _ in range(1000):
        party.service.await_tasks(0.01)
        try:
            party.service.take()
        except BaseException as exc:
            return exc
    raise AssertionError("the service goes on")


def test_a_worker_that_its_only_student_will_never_take_says_goodbye_and_ends(party):
    party.say(Refused(reason="weights 77 instead of 12", incompatible=True))
    party.until(lambda: party.service._students[STUDENT.id].incompatible)
    party.clock.advance(1.0)
    error = ended_by(party)
    assert isinstance(error, IncompatibleError) and "weights 77 instead of 12" in str(error)
    assert "weights 77" in party.heard(party.coordinator, Goodbye).reason


def test_a_worker_whose_only_student_is_of_another_revision_ends_and_says_so(party):
    party.speak_otherwise(STUDENT.address)
    party.until(lambda: party.service._students[STUDENT.id].incompatible)
    party.clock.advance(1.0)
    assert "another revision" in str(ended_by(party))
    assert "wire protocol 1" in party.heard(party.coordinator, Goodbye).reason


def test_students_are_served_on_when_a_coordinator_of_another_revision_takes_over(party, caplog):
    for _ in range(2):
        party.speak_otherwise("tcp://coordinator:1")
    party.until(lambda: "Going on without a coordinator" in caplog.text)
    party.say(Ping(seq=1, buffered=0))
    party.heard(party.student, Pong)
    assert caplog.text.count("another revision") == 1
    party.say(Goodbye(id="s"))
    party.until(lambda: not party.service._students)
    party.speak_otherwise("tcp://coordinator:1")
    assert isinstance(ended_by(party), ProtocolVersionError)


def test_a_worker_that_its_only_student_has_no_use_for_stays_and_says_so_once(party, caplog):
    reason = "worker w sends codec dense; this student takes topk:46"
    for _ in range(2):
        party.say(Refused(reason=reason))
    party.until(lambda: party.service._students[STUDENT.id].refused)
    party.clock.advance(10.0)
    second = Peer(id="s-2", address="tcp://second:1")
    hub = party.poller.bind(second.address)
    party.order(Links(students=[STUDENT, second], complete=True))
    party.heard(hub, Hello)
    hub.send(WORKER, WELCOME)
    party.until(lambda: party.service._students[second.id].serving)
    assert party.service.take() == [], "it did not end"
    assert caplog.text.count(f"student s refused this worker: {reason}") == 1


def test_a_worker_that_another_student_takes_goes_on(party):
    second = Peer(id="s-2", address="tcp://second:1")
    hub = party.poller.bind(second.address)
    party.order(Links(students=[STUDENT, second], complete=True))
    party.heard(hub, Hello)
    party.say(Refused(reason="weights 77 instead of 12", incompatible=True))
    party.until(lambda: party.service._students[STUDENT.id].incompatible)
    party.clock.advance(1.0)
    hub.send(WORKER, WELCOME)
    party.until(lambda: party.service._students[second.id].serving)
    hub.send(WORKER, Ping(seq=1, buffered=0))
    party.heard(hub, Pong)


def test_students_are_served_on_by_a_worker_whose_place_another_model_took_while_it_was_out_of_sight(party):
    party.order(Unknown())
    party.heard(party.coordinator, Register)
    party.order(Refused(reason="version 1 instead of 2", incompatible=True))
    party.until(lambda: party.service._job._refused)
    party.say(Ping(seq=1, buffered=0))
    party.heard(party.student, Pong)
    party.say(Goodbye(id=STUDENT.id, reason="done"))
    party.until(lambda: not party.service._students)
    party.order(Refused(reason="version 1 instead of 2", incompatible=True))
    error = ended_by(party)
    assert isinstance(error, IncompatibleError) and "version 1 instead of 2" in str(error)


def given(party: Party, *leases: int) -> None:
    """Answer a pull with a task of four samples for each lease."""
    pull = party.heard(party.student, Pull)
    spec = TensorSpec(name="x", dtype="float32", shape=[4])
    groups = [
        LeaseGroup(leases=[Lease(id=each, samples=4, cost=4, own_pass=False)], tensors=[spec])
        for each in leases
    ]
    frames = [bytes(16)] * len(leases)
    party.student.send(WORKER, Tasks(seq=pull.seq, groups=groups, buffered=0), frames)


def test_a_worker_that_drains_gives_back_at_once_what_no_pass_has_taken(party: Party) -> None:
    given(party, 1, 2, 3)
    party.service.await_tasks(5.0)
    (begun,) = party.service.take()
    party.service.drain()
    assert party.heard(party.student, Return).leases == [2, 3]
    assert not party.service.drained
    party.service.answer(Outcome([Answer([begun], None, error="it failed")]))
    assert party.heard(party.student, Failure).leases == [1]
    party.until(lambda: party.service.drained)


def test_tasks_that_arrive_while_a_worker_drains_go_back(party: Party) -> None:
    party.service.drain()
    given(party, 1, 2)
    assert party.heard(party.student, Return).leases == [1, 2]


def test_a_worker_that_leaves_gives_back_what_its_model_has_not_ended(party: Party) -> None:
    given(party, 1, 2)
    party.service.await_tasks(5.0)
    assert [task.lease for task in party.service.take()] == [1]
    party.service.close("its time is up")
    assert party.heard(party.student, Return).leases == [1, 2]
    assert party.heard(party.student, Goodbye).reason == "its time is up"


def test_a_worker_that_has_nothing_left_waits_for_no_more_tasks(party: Party) -> None:
    given(party, 1)
    party.service.await_tasks(5.0)
    (begun,) = party.service.take()
    party.service.drain()
    waiting = threading.Thread(target=party.service.await_tasks, args=(600.0,), daemon=True)
    waiting.start()
    party.service.answer(Outcome([Answer([begun], None, error="it failed")]))
    waiting.join(20)
    assert not waiting.is_alive()
