"""The teacher worker's server: one I/O thread that owns all its sockets.

The compute thread takes forward passes from here and hands results back; libzmq's own thread
moves the bytes, so receiving, computing and sending overlap. Links to students are ``StudentLinks``.

When the coordinator dies, nothing changes. When this process drains, it asks for nothing new, finishes the
passes that have begun, gives back everything else, and says goodbye; what has not ended when its time is up
is given back too.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Collection, Mapping

import msgspec

from edldist.clock import Clock
from edldist.errors import IncompatibleError, ProtocolVersionError
from edldist.labels.grammar import CodecSpec
from edldist.observe.stages import times_of
from edldist.teacher.capacity import Capacity
from edldist.teacher.passage import Passage, Passages
from edldist.teacher.service.identity import TeacherIdentity
from edldist.teacher.service.idleness import Idleness
from edldist.teacher.service.job_link import JobLink
from edldist.teacher.service.ledger import Ledger
from edldist.teacher.service.levels import Levels
from edldist.teacher.service.outbox import Outbox
from edldist.teacher.service.student import ServedStudent
from edldist.teacher.service.student_links import GREET_AGAIN_S, StudentLinks
from edldist.teacher.service.trail import COMPUTE, IO, Trail
from edldist.teacher.tasks import HeldTask, Level, Outcome
from edldist.tracing.recorder import Recorder
from edldist.wire.messages import (
    Goodbye,
    Heartbeat,
    Idle,
    Ping,
    Refused,
    Result,
    Return,
    Scalar,
    Tasks,
    TokensTold,
    TokensWanted,
    Unknown,
    Wake,
    Welcome,
)
from edldist.wire.process import route_of
from edldist.wire.transport import Link, Received, Transport, closed_on_error
from edldist.wire.turns import ServiceThread

__all__ = ["TeacherService"]

logger = logging.getLogger(__name__)

_TICK_S = 0.5
_TICKS_A_TTL = 5
_TURN_MESSAGES = 64


class TeacherService:
    """Pulls tasks for the compute thread and carries its answers away."""

    def __init__(
        self,
        identity: TeacherIdentity,
        transport: Transport,
        clock: Clock,
        alive: Callable[[Collection[str], float], None] = lambda addresses, ttl_s: None,
    ) -> None:
        """Connect to the coordinator, and be ready for ``start``, or for turns that somebody else calls.

        Args:
            alive: called at every tick, and when a student takes this worker, with the addresses of those
                that count this worker's silence, and the shortest of it that any of them takes for a loss
                (``Voucher.alive``).
        """
        self._alive = alive
        self._identity = identity
        self._route = route_of(identity.worker, identity.process)
        self._clock = clock
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._ledger = Ledger(identity.batch_size)  # under the lock
        self._links = StudentLinks(identity, self._dial, clock.monotonic(), self._disconnect)
        self._students = self._links.students
        self._renewal: tuple[str, str] | None = None  # under the lock
        self._draining = False
        self._stopping = False
        self._error: BaseException | None = None
        self.extra_stats: Callable[[], dict[str, Scalar]] = dict
        self.makes: Callable[[CodecSpec], str] = lambda codec: ""
        """Why the compute thread cannot send labels in a codec beside its own; empty if it can."""
        self.capacity = Capacity()
        self.in_passes: Callable[[], Mapping[str, Level]] = dict
        """What the compute thread has in its hands, by the stage that it waits for."""
        self._passages = Passages(random.Random(identity.worker))
        self._levels = Levels(self._waiting)
        self.recorder = Recorder(clock.monotonic, (IO, COMPUTE))
        self._trail = Trail(self.recorder)
        self._idleness = Idleness(clock.monotonic(), self._trail.tape)
        self._outbox = Outbox(
            *(self._students, self._ledger, clock, self._trail, self._passages, self._learn_outputs)
        )
        with closed_on_error(transport.poller()) as self._poller:
            control = self._poller.connect(identity.coordinator, self._route)
            links = self._students.keys()
            self._job = JobLink(identity, control, clock, self._heartbeat, links, self.recorder)
            self._next_tick = clock.monotonic()
            self._thread = ServiceThread("edldist-teacher-io", self, self._poller, clock)

    def start(self) -> None:
        """Begin to serve, in a thread of this object's own."""
        self._thread.start()

    # --- the compute thread -----------------------------------------------------------------------

    def await_tasks(self, timeout_s: float) -> None:
        """Wait until there are tasks to take, or it has given up all, or has ended, or time is up."""
        with self._arrived:
            self._arrived.wait_for(
                lambda: (
                    (self._ledger.waiting and not self._renewal)
                    or self._error
                    or self._stopping
                    or self.drained
                ),
                timeout_s,
            )

    def take(self) -> list[HeldTask]:
        """The tasks of the next forward pass; empty when there are none now.

        Raises:
            EdlDistError: what ended the service.
        """
        with self._lock:
            if self._error is not None:
                raise self._error
            return [] if self._renewal is not None else self._ledger.take()

    def answer(self, outcome: Outcome) -> None:
        """Hand over what became of one forward pass."""
        self._outbox.put(outcome)
        self._poller.wake()

    def renew(self, version: str, weights: str) -> None:
        """The model is another version now: greet everybody anew, before any more tasks are taken.

        What was computed by the one before is answered first; what no pass has taken, students give to
        others, or to this worker again.
        """
        with self._lock:
            self._renewal = version, weights
        self._poller.wake()

    def resize(self, batch_size: int) -> None:
        """Change the most samples of a forward pass from now on."""
        with self._lock:
            self._ledger.resize(batch_size)

    def drain(self) -> None:
        """Pull nothing new from now on, and give back what no pass has taken. For any thread."""
        self._draining = True
        self._poller.wake()

    @property
    def drained(self) -> bool:
        """Draining, and nothing is held any more."""
        return self._draining and not len(self._ledger)

    @property
    def waits_for(self) -> str | None:
        """What keeps it from taking part in its job, in words; None while it does. For any thread."""
        return "it was asked to leave" if self._draining else self._job.waits_for

    def max_frame_bytes(self, student: str) -> int | None:
        """The largest frame that a student takes in."""
        known = self._students.get(student)
        return known.max_frame_bytes if known is not None else None

    def close(self, reason: str) -> None:
        """Give back what is held, say goodbye, and end the I/O thread. For any thread."""
        self._reason = reason
        self._stopping = True
        self._thread.close()

    # --- the I/O thread, or whoever calls the turns --------------------------------------------------

    def turn(self, now: float) -> float:
        """Take tasks in, carry answers away and ask for more (see ``wire.turns``)."""
        for links in self._job.turn(now, self._links.serving):
            self._links.follow(links, now, self._job.fingerprint, anew=not self._draining)
        for student in list(self._students.values()):
            self._read_student(student, now)
        if self._draining and self._ledger.waiting:
            with self._lock:
                self._give_back(self._ledger.give_back_waiting())
        if self.drained:
            with self._arrived:
                self._arrived.notify_all()
        if now >= self._levels.due_at:
            self._levels.look(now)
        self._outbox.carry(not (self._draining or self._stopping))
        if self._renewal is not None and not self._outbox:
            self._renew(*self._renewal, now)
        self._idleness.note(self._ledger.idle, now)
        if now >= self._next_tick:
            self._tick(now)
            self._next_tick = now + min(_TICK_S, self._ttl_s / _TICKS_A_TTL)
        return now if self._outbox else min(self._next_tick, now + self._job.next_due_s(now))

    def fail(self, error: BaseException) -> None:
        """Raise in the compute thread what ended a turn."""
        with self._arrived:
            self._error = error
            self._arrived.notify_all()
        if isinstance(error, IncompatibleError):
            self._job.leave(str(error))

    def _heartbeat(self) -> Heartbeat:
        now = self._clock.monotonic()
        capacity = self.capacity.seen(now, self._ledger.samples, self._idleness.seconds(now))
        return Heartbeat(
            id=self._identity.worker,
            stats=self._stats(),
            capacity=capacity,
            stages=times_of(self._passages.stages),
            rows=self._passages.rows(now),
        )

    def _stats(self) -> dict[str, Scalar]:
        own: dict[str, Scalar] = {
            "samples": self._ledger.samples,
            "tasks": self._ledger.tasks,
            "held": len(self._ledger),
            "room": self._ledger.room,
            "students": sum(student.serving for student in self._students.values()),
            "draining": self._draining,
            "quarantine": "; ".join(s.quarantine for s in self._students.values() if s.quarantine)[:500],
        }
        queues = self._levels.told(self._clock.monotonic())
        return own | self._poller.traffic.as_stats() | queues | self.extra_stats()

    def _waiting(self) -> dict[str, Level]:
        """What waits for which stage."""
        with self._lock:
            levels = self._ledger.levels()
        return {**levels, **self.in_passes(), "send": self._outbox.level}

    def _renew(self, version: str, weights: str, now: float) -> None:
        self._job.renew(version, weights)
        for name, student in self._students.items():
            self._disconnect(name)
            student.refused, student.incompatible = False, ""
            self._links.greet(student, now, self._job.fingerprint)
        with self._arrived:
            self._renewal = None
            self._arrived.notify_all()

    def _read_student(self, student: ServedStudent, now: float) -> None:
        for _ in range(_TURN_MESSAGES):
            passage = None
            if self._passages.skip <= 0 or now >= self._passages.late_at:
                passage = self._passages.begin(now, self._clock.monotonic())
            try:
                received = student.link.receive()
            except ProtocolVersionError as exc:
                student.incompatible = str(exc)
                self._links.give_up(student, str(exc))
                return
            if received is None:
                return
            student.last_heard = now
            self._take_message(student, received, now, passage)
            if student.peer.id not in self._students:
                return

    def _take_message(
        self, student: ServedStudent, received: Received, now: float, passage: Passage | None
    ) -> None:
        name, message = student.peer.id, received.message
        if isinstance(message, Welcome):
            student.serving = True
            student.ttl_s = message.heartbeat_ttl_s
            student.max_frame_bytes = message.max_frame_bytes
            with self._lock:
                self._ledger.connected(name, message.share)
            self._object(student, message)
            self._say_alive()  # before its first task can keep this thread from saying so
            logger.info("serving student %s at %s", name, student.peer.address)
        elif isinstance(message, Refused):
            student.incompatible = message.reason if message.incompatible else ""
            if not student.refused:  # else it asks whether anybody is here
                self._links.give_up(student, message.reason)
        elif isinstance(message, TokensWanted):
            if (tokens := self._identity.tokens) is not None:
                student.greeted_at = now
                student.link.send(TokensTold(mark=tokens.mark), [memoryview(tokens.packed)])
        elif isinstance(message, Goodbye):
            student.serving = False  # an answer would only wait for a socket that is gone
            self._links.forget(student, message.reason)
        elif isinstance(message, Ping):
            student.link.send(self._ledger.view(name, message))
        elif isinstance(message, Unknown):
            if now - student.greeted_at > GREET_AGAIN_S or student.serving:
                self._disconnect(name)
                self._links.greet(student, now, self._job.fingerprint)
        elif not student.serving:
            logger.debug("student %s sent a %s before its welcome", name, type(message).__name__)
        elif isinstance(message, Tasks):
            self._accept(student, message, received.frames, passage)
        elif isinstance(message, Idle):
            if self._ledger.idled(name, message):
                if message.quarantine and not student.quarantine:
                    logger.warning("student %s gives this worker no work: %s", name, message.quarantine)
                student.quarantine = message.quarantine
        elif isinstance(message, Wake):
            self._ledger.woken(name, message)

    def _object(self, student: ServedStudent, welcome: Welcome) -> None:
        """Say at once which labels a student may ask for in vain, and not when its fleet is overloaded."""
        me = self._identity
        for codec in welcome.codecs:
            if why := self.makes(codec):
                reason = (
                    f"worker {me.worker} of teacher {me.teacher!r} cannot send its labels as {codec}: {why}"
                )
                student.link.send(Refused(reason=reason))

    def _accept(
        self, student: ServedStudent, message: Tasks, frames: list[memoryview], passage: Passage | None
    ) -> None:
        if self._draining:
            student.link.send(Return(leases=[lease.id for group in message.groups for lease in group.leases]))
            return
        if not all(lease.compared for group in message.groups for lease in group.leases):
            student.quarantine = ""  # a question is no work
        since = self._trail.tape.now() if self._trail.tape.on else None
        with self._arrived:
            self._ledger.accept(student.peer.id, message, frames, passage)
            if passage is None:
                self._passages.passed()
            else:
                self._passages.took(passage, self._clock.monotonic())
            self._arrived.notify()
        if since is not None:
            self._trail.received(student.peer.id, message, frames, since)

    def _learn_outputs(self, result: Result) -> None:
        """The first pass has shown what this model's outputs are: whoever is greeted from now on is told."""
        if self._job.fingerprint.outputs is not None:
            return
        outputs = sorted(spec.name for spec in result.tensors)
        self._job.fingerprint = msgspec.structs.replace(self._job.fingerprint, outputs=outputs)

    def _tick(self, now: float) -> None:
        self._links.look(now, self._job.fingerprint)
        self._say_alive()
        if (reason := self._links.unwanted) and not self._draining:
            raise IncompatibleError(f"no student takes this worker: {reason}")
        if not self._links.serving:
            self._job.end_if_orphaned(now)

    def _say_alive(self) -> None:
        serving = [student.peer.address for student in self._students.values() if student.serving]
        self._alive([self._identity.coordinator, *serving], self._ttl_s)

    @property
    def _ttl_s(self) -> float:
        """The shortest silence of this worker that anybody takes for its loss."""
        served = (student.ttl_s for student in self._students.values() if student.serving)
        return min([self._job.heartbeat_ttl_s, *served])

    def _dial(self, address: str) -> Link:
        return self._poller.connect(address, self._route, "student")

    def _disconnect(self, name: str) -> None:
        """Forget the tasks of a student that does not expect their answers (any more)."""
        with self._lock:
            self._ledger.disconnected(name)

    def leave(self) -> None:
        """Give back what is held, a pass that does not end included, and say goodbye."""
        self._outbox.carry(asks=False)
        while self._outbox:
            self._outbox.carry(asks=False)
        with self._lock:
            self._give_back(self._ledger.give_back_all())
        self._links.leave(self._reason)
        self._job.leave(self._reason)

    def _give_back(self, leases: Mapping[str, list[int]]) -> None:
        for name, those in leases.items():
            self._students[name].link.send(Return(leases=those))
