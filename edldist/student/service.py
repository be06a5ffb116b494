"""The student's server: one I/O thread that owns the sockets, around the pure ``LabelQueue``.

Two threads meet here. The trainer's thread offers batches and takes finished ones; the I/O thread
answers workers. The queue and the table of open batches are guarded by one lock, held only for
bookkeeping: labels are copied outside of it, by the I/O thread, which is also the only one that
ends leases, so that a lease cannot be written off while its labels are being placed.

What happens when a party dies:

* worker killed: the next probe (every ``PROBE_S`` to who holds a lease) raises, its tasks requeue;
* worker frozen or cut off: silent for ``heartbeat_ttl_s``, the same;
* worker's compute stuck: its leases pass their deadlines and are written off one by one;
* another rank of the group lost: the coordinator says ``Regroup``, and this process leaves at once,
  whatever its training thread waits for; its agent starts it anew in a new group;
* coordinator gone: nothing changes here, the enrolment keeps trying;
* the trainer leaves its loop: ``clear``; late answers are counted and dropped;
* this process dies: workers find the link dead; all state was its own.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edldist.clock import Clock
from edldist.errors import (
    EdlDistError,
    InputError,
    LabelError,
    LoaderClosedError,
    PeerUnreachableError,
    PoisonTaskError,
)
from edldist.labels.codec import parse_codec
from edldist.student.assembly import OpenBatch
from edldist.student.quarantine import Quarantine
from edldist.student.queue import Flow, Grant, LabelQueue, Lost, Poison
from edldist.student.stopping import leave_group
from edldist.wire.member import Enrolment
from edldist.wire.messages import (
    Event,
    Failure,
    Goodbye,
    Hello,
    Idle,
    Labels,
    Message,
    Ping,
    Pong,
    Pull,
    Refused,
    Register,
    Regroup,
    Result,
    Return,
    Scalar,
    Task,
    Tasks,
    Unknown,
    Wake,
    Welcome,
)
from edldist.wire.transport import Frames, Received, Transport

__all__ = ["ServiceOptions", "StudentService"]

logger = logging.getLogger(__name__)

PROBE_S = 0.1
_IDLE_PING_S = 1.0
_TURN_MESSAGES = 256
_MOST_DISCONNECTED = 1_000


@dataclass(frozen=True)
class ServiceOptions:
    """How a student rank takes part in the job.

    Attributes:
        student: unique name of this rank's loader.
        teachers: names of the teacher groups whose labels are wanted.
        coordinator: its address.
        bind: address to listen on, as ``tcp://host:0``.
        advertise: host that workers connect to; None for the bound one.
        flow: the queue's bounds.
        heartbeat_ttl_s: a worker silent for longer is lost.
        hedge_after_s: a lease that holds the loop up, and is older than this and than three times an
            idle worker's own latency, is given to that worker too. However many batches behind it
            are labelled: the loop gets none of them before.
        connect_timeout_s: how long to wait for a coordinator.
        group: of the ranks that train together, or empty.
        skip_poison: deliver a batch that cannot be labelled without labels instead of raising.
        info: shown by ``status``.
    """

    student: str
    teachers: tuple[str, ...]
    coordinator: str
    bind: str
    advertise: str | None
    flow: Flow
    heartbeat_ttl_s: float = 3.0
    hedge_after_s: float = 0.25
    connect_timeout_s: float = 300.0
    max_frame_bytes: int = 1 << 30
    group: str = ""
    skip_poison: bool = False
    info: dict[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Ping:
    """What this side knew of a worker when it sent it a ping."""

    seq: int
    leases: frozenset[int]
    pull_seen: int
    awake: bool


@dataclass(slots=True)
class _Worker:
    """A connected teacher worker."""

    name: str
    key: str  # its address, as the queue's name for it
    teacher: str
    process: str
    batch_size: int
    last_heard: float
    last_sent: float
    asleep: bool = False
    pull_seen: int = 0  # number of its last pull, which was answered at once
    ping: _Ping | None = None
    ping_seq: int = 0


class StudentService:
    """Delivers labels to one training loop."""

    def __init__(
        self, options: ServiceOptions, transport: Transport, clock: Clock, host: str, pid: int
    ) -> None:
        self._options = options
        self._clock = clock
        self._host = host
        self._pid = pid
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._queue = LabelQueue(options.teachers, options.flow, random.SystemRandom().randrange(1, 1 << 48))
        self._open: dict[int, OpenBatch] = {}
        self._workers: dict[bytes, _Worker] = {}
        self._disconnected: dict[bytes, str] = {}  # the processes behind connections that broke
        self._unreachable: dict[bytes, float] = {}  # dropped peers, and when they were
        self._asleep = 0
        self._fitting_samples = sys.maxsize
        self._error: BaseException | None = None
        self._quarantine = Quarantine()
        self._poison: dict[int, PoisonTaskError] = {}  # by batch: raised when that one is due
        # Several to a time to live, or one that is idle and well would be taken for silent.
        self._idle_ping_s = min(_IDLE_PING_S, options.heartbeat_ttl_s / 3)
        self._last_probe = clock.monotonic()
        self._events: deque[Event] = deque()
        self._stopping = False
        self._full_since: float | None = None
        self._backpressure_s = 0.0
        self.extra_stats: Callable[[], dict[str, Scalar]] = dict
        self._poller = transport.poller()
        try:
            self._hub = self._poller.bind(options.bind)
            self._control = self._poller.connect(options.coordinator, options.student)
        except BaseException:
            self._poller.close()
            raise
        self.address = self._hub.address
        if options.advertise is not None:
            self.address = f"tcp://{options.advertise}:{self.address.rpartition(':')[2]}"
        self._enrolment = Enrolment(
            options.student,
            self._registration,
            self.stats,
            options.coordinator,
            options.connect_timeout_s,
            clock.monotonic(),
        )
        self._thread = threading.Thread(target=self._run, name="edldist-student-io", daemon=True)
        self._thread.start()

    # --- the trainer's thread -----------------------------------------------------------------

    def wants_batch(self) -> bool:
        with self._lock:
            return self._queue.wants_batch()

    def offer(self, batch: OpenBatch) -> None:
        """Append a batch to the queue.

        Raises:
            InputError: a task of it would not fit into a frame.
        """
        self._check_size(batch)
        with self._lock:
            number = self._queue.offer(batch.samples, batch.input_bytes)
            self._open[number] = batch
            self._account()
            wake = self._asleep > 0
        if wake:
            self._poller.wake()

    def _check_size(self, batch: OpenBatch) -> None:
        """Tasks that are cut to a worker's wish shrink to fit; fixed ones, and single samples, cannot."""
        if not batch.sample_bytes:
            return
        fitting = self._options.max_frame_bytes // batch.sample_bytes
        flow = self._options.flow
        fixed = flow.task_size or batch.samples if flow.fixed or flow.task_size else 1
        if fixed > fitting:
            raise InputError(
                f"a task of {fixed} samples of {batch.sample_bytes} bytes exceeds the limit of a frame, "
                f"{self._options.max_frame_bytes} bytes"
                + (f": set task_size to at most {fitting}" if fitting else "")
            )
        self._fitting_samples = min(self._fitting_samples, fitting)

    def empty(self) -> bool:
        with self._lock:
            return not self._queue.open_batches

    def wait(self, timeout_s: float, reading: bool) -> bool:
        """Wait until the head batch is ready, or the data loader should be read, or time is up.

        Args:
            reading: whether the data loader has more; if not, only a ready batch ends the wait.

        Returns:
            Whether the head batch is ready.

        Raises:
            EdlDistError: what ended the service, or made a task of the head batch poison.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._queue.ready() or self._failure() or (reading and self._queue.wants_batch()),
                timeout_s,
            )
            if self._queue.ready():
                return True
            failure = self._failure()
            if failure is not None:
                raise failure
            return False

    def _failure(self) -> BaseException | None:
        head = self._queue.head
        return self._error or (None if head is None else self._poison.get(head))

    def deliver(self) -> OpenBatch:
        """Take the head batch out; only when ``wait`` said that it is ready."""
        with self._lock:
            batch = self._open.pop(self._queue.deliver())
            self._account()
            return batch

    def clear(self) -> None:
        """Forget all batches: the loop was left."""
        with self._lock:
            self._queue.clear()
            self._open.clear()
            self._poison.clear()
            self._account()

    def emit(self, event: str, **fields: Scalar) -> None:
        """Send an event to the coordinator's record."""
        self._events.append(Event(event=event, t=self._clock.wall(), fields=fields))

    def stats(self) -> dict[str, Scalar]:
        """Figures of the queue and of the workers that serve it."""
        with self._lock:
            queue = self._queue
            figures: dict[str, Scalar] = {
                "done": queue.done,
                "failed": queue.failed,
                "requeued": queue.requeued,
                "duplicates": queue.duplicates,
                "hedged": queue.hedged,
                "buffered": queue.labelled_batches,
                "open": queue.open_batches,
                "queue_bytes": queue.nbytes,
                "teachers": len(self._workers),
                "garbage": self._hub.garbage,
                "backpressure_s": round(self._backpressure_s + self._full_for(), 6),
            }
        return figures | self.extra_stats()

    def teachers(self) -> int:
        """Number of connected workers."""
        return len(self._workers)

    def missing_teachers(self) -> list[str]:
        """Teacher groups of which no worker is connected."""
        here = {worker.teacher for worker in list(self._workers.values())}
        return [name for name in self._options.teachers if name not in here]

    def close(self) -> None:
        """Say goodbye and end the I/O thread. In a forked child, which has no such thread: nothing."""
        if os.getpid() != self._pid or self._stopping:
            return
        self._stopping = True
        self._poller.wake()
        self._thread.join()

    # --- the I/O thread -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            next_probe = 0.0
            while not self._stopping:
                now = self._clock.monotonic()
                self._poller.wait(min(max(0.0, next_probe - now), self._enrolment.next_due_s(now)))
                now = self._clock.monotonic()
                self._read_control(now)
                self._read_workers()
                if now >= next_probe:
                    next_probe = now + PROBE_S
                    self._probe(now)
                if self._asleep:
                    self._wake_sleepers(now)
            self._say_goodbye()
            self._raise_in_loop(LoaderClosedError("this DistillLoader was closed; make a new one"))
        except BaseException as exc:
            if not isinstance(exc, EdlDistError):
                logger.error("the label service failed:\n%s", traceback.format_exc())
            self._raise_in_loop(exc)
        finally:
            self._poller.close()

    def _read_control(self, now: float) -> None:
        while (received := self._control.receive()) is not None:
            if isinstance(received.message, Regroup):
                leave_group(received.message.reason)
            elif self._enrolment.on_message(received.message, now):
                logger.info("student %s joined at %s", self._options.student, self._options.coordinator)
        for message in self._enrolment.due(now):
            self._control.send(message)
        while self._events and self._enrolment.joined:
            self._control.send(self._events.popleft())

    def _registration(self, rejoin: bool) -> Register:
        return Register(
            id=self._options.student,
            role="student",
            group=self._options.group,
            address=self.address,
            teachers=list(self._options.teachers),
            host=self._host,
            pid=self._pid,
            wall_s=self._clock.wall(),
            info=self._options.info | {"rejoin": rejoin},
        )

    def _read_workers(self) -> None:
        for _ in range(_TURN_MESSAGES):
            received = self._hub.receive()
            if received is None:
                return
            worker = self._workers.get(received.peer)
            if worker is not None:
                worker.last_heard = self._clock.monotonic()
            self._take(received, worker)

    def _take(self, received: Received, worker: _Worker | None) -> None:
        message = received.message
        if isinstance(message, Hello):
            self._greet(received.peer, message)
        elif worker is None:
            self._answer_stranger(received.peer, message)
        elif isinstance(message, Pull):
            self._on_pull(received.peer, worker, message)
        elif isinstance(message, Labels):
            self._on_labels(worker, message, received.frames)
        elif isinstance(message, Failure):
            for lease in message.leases:
                self._fail(worker, lease, message.error)
        elif isinstance(message, Return):
            with self._changed:
                self._requeued(self._queue.give_back(message.leases, worker.key), worker, "it drains")
        elif isinstance(message, Goodbye):
            self._drop(received.peer, message.reason or "it said goodbye", lost=False)
        elif isinstance(message, Pong):
            self._reconcile(worker, message)
        else:
            logger.debug("worker %s sent a %s, which is none of ours", worker.name, type(message).__name__)

    def _greet(self, peer: bytes, hello: Hello) -> None:
        reason = None
        if hello.teacher not in self._options.teachers:
            reason = f"this student wants labels of {list(self._options.teachers)}, not of {hello.teacher!r}"
        else:
            try:
                parse_codec(hello.codec)
            except EdlDistError as exc:
                reason = str(exc)
        if reason is not None:
            logger.warning("refused teacher worker %s: %s", hello.worker, reason)
            self._send(peer, Refused(reason=reason))
            return
        now = self._clock.monotonic()
        if peer in self._workers:
            # It lives and its tasks killed nobody: one side was suspended, or their connection broke.
            self._drop(peer, "it greets anew", lost=False)
        with self._lock:
            self._workers[peer] = _Worker(
                *(hello.worker, _key(peer), hello.teacher, hello.process, hello.batch_size),
                last_heard=now,
                last_sent=now,
            )
            if hello.process and self._disconnected.pop(peer, None) == hello.process:
                self._queue.forgive(_key(peer))
            self._queue.join(_key(peer), hello.teacher)
        logger.info("teacher worker %s (%s) connected", hello.worker, hello.teacher)
        self._send(
            peer,
            Welcome(
                student=self._options.student,
                ping_interval_s=self._idle_ping_s,
                heartbeat_ttl_s=self._options.heartbeat_ttl_s,
                max_frame_bytes=self._options.max_frame_bytes,
            ),
        )

    def _answer_stranger(self, peer: bytes, message: Message) -> None:
        """A worker that was written off speaks again: its answers are late, it may greet anew."""
        if isinstance(message, Labels):
            with self._lock:
                self._queue.duplicates += len(message.results)
        if not isinstance(message, Goodbye):
            self._send(peer, Unknown())

    def _on_pull(self, peer: bytes, worker: _Worker, pull: Pull) -> None:
        now = self._clock.monotonic()
        key = worker.key
        worker.pull_seen = pull.seq
        with self._changed:
            aside = self._aside(worker, now)
            grants = [] if aside else self._queue.lease(key, min(pull.samples, self._fitting_samples), now)
            if not grants and not aside:
                second = self._queue.hedge(key, pull.samples, now, self._options.hedge_after_s)
                grants = [second] if second is not None else []
            buffered = self._queue.deliverable_batches
            batches = [self._open[grant.batch] for grant in grants]
            self._sleep(worker, not grants)
            if self._queue.wants_batch():
                self._changed.notify_all()
        if not grants:
            self._send(peer, Idle(seq=pull.seq, buffered=buffered, quarantine=aside))
            return
        tasks, frames = _cut(grants, batches)
        self._send(peer, Tasks(seq=pull.seq, tasks=tasks, buffered=buffered), frames)

    def _on_labels(self, worker: _Worker, message: Labels, frames: list[memoryview]) -> None:
        position = 0
        for result in message.results:
            own = frames[position : position + len(result.tensors)]
            position += len(result.tensors)
            self._place(worker, result, own)

    def _place(self, worker: _Worker, result: Result, frames: list[memoryview]) -> None:
        with self._lock:
            grant = self._queue.find(result.lease, worker.key)
            batch = self._open[grant.batch] if grant is not None else None
        if grant is None or batch is None:
            return
        try:
            if len(frames) != len(result.tensors):
                raise LabelError(f"{len(result.tensors)} label tensors announced, {len(frames)} frames came")
            made = batch.place(grant.teacher, grant.start, grant.stop, result.tensors, frames)
        except LabelError as exc:
            self._fail(worker, result.lease, f"worker {worker.name}: {exc}")
            return
        with self._changed:
            # The loop may have been left while the labels were copied.
            if self._queue.holds(result.lease):
                self._queue.grow(grant.batch, made)
                self._quarantine.succeeded(worker.key)
                if self._queue.complete(result.lease, self._clock.monotonic()):
                    self._changed.notify_all()
                self._account()

    def _fail(self, worker: _Worker, lease: int, error: str) -> None:
        with self._changed:
            if self._queue.find(lease, worker.key) is None:
                return
            line = _last_line(error)
            logger.warning("worker %s failed a task: %s", worker.name, line)
            now = self._clock.monotonic()
            aside_s = self._quarantine.failed(worker.key, line, now)
            aside = self._aside(worker, now) if aside_s is not None else ""
            if aside:
                self.emit("teacher_quarantined", worker=worker.name, for_s=aside_s, error=line)
                logger.warning("worker %s gets no work for %.0f s: it keeps failing", worker.name, aside_s)
                self._sleep(worker, True)
            self._requeued(self._queue.fail(lease, error), worker, "the model raised")
        if aside:
            # It may have been asleep already, and would not ask again.
            idle = Idle(seq=worker.pull_seen, buffered=0, quarantine=aside)
            self._send(worker.key.encode("latin-1"), idle)

    def _probe(self, now: float) -> None:
        """Touch every worker that holds something, and find out who is silent or late.

        Silence counts only while this side listened: after a stop of this process (suspended, or the
        interpreter lock was held for long) what the workers said still waits in the socket.
        """
        away_s = now - self._last_probe
        self._last_probe = now
        if away_s > self._options.heartbeat_ttl_s / 2:
            for worker in self._workers.values():
                worker.last_heard = min(now, worker.last_heard + away_s)
        for peer, worker in list(self._workers.items()):
            silent_s = now - worker.last_heard
            if silent_s > self._options.heartbeat_ttl_s:
                self._drop(
                    peer,
                    f"silent for {silent_s:.1f} s (heartbeat_ttl_s={self._options.heartbeat_ttl_s:g})",
                    lost=True,
                )
                continue
            with self._lock:
                leases = frozenset(self._queue.leases_of(worker.key))
                buffered = self._queue.deliverable_batches
            if now - worker.last_sent >= (PROBE_S / 2 if leases else self._idle_ping_s):
                worker.ping_seq += 1
                worker.ping = _Ping(worker.ping_seq, leases, worker.pull_seen, not worker.asleep)
                self._send(peer, Ping(seq=worker.ping_seq, buffered=buffered))
        self._call_back(now)
        with self._changed:
            late = self._queue.overdue(now)
            self._poisoned(self._queue.verdicts(now))
        for key, overdue in late.items():
            self._write_off(key, overdue)

    def _call_back(self, now: float) -> None:
        """Tell workers that were unreachable, and live, to greet anew as soon as they are connected again.

        One that waits for tasks would find out by this side's silence alone.
        """
        for peer, since in list(self._unreachable.items()):
            if peer not in self._workers and now - since <= self._options.heartbeat_ttl_s:
                try:
                    self._hub.send(peer, Unknown())
                except PeerUnreachableError:
                    continue
            del self._unreachable[peer]

    def _reconcile(self, worker: _Worker, pong: Pong) -> None:
        """Make good what a broken connection swallowed (see ``Pong``)."""
        ping = worker.ping
        if ping is None or pong.seq != ping.seq:
            return
        worker.ping = None
        gone = ping.leases - set(pong.held)
        with self._changed:
            gone &= frozenset(self._queue.leases_of(worker.key))
            if gone:
                reason = "its connection broke and the task or its labels were lost"
                self._requeued(self._queue.give_back(sorted(gone), worker.key), worker, reason)
            # A pull that never came, one whose answer never arrived, or a wake that never did.
            if pong.pulled > worker.pull_seen or (pong.pulled and pong.pulled == ping.pull_seen):
                self._sleep(worker, True)
                stuck = True
            else:
                stuck = False
                if pong.asleep and ping.awake:
                    self._sleep(worker, True)
        if stuck:
            self._send(worker.key.encode("latin-1"), Idle(seq=pong.pulled, buffered=0))

    def _write_off(self, key: str, leases: Sequence[int]) -> None:
        worker = self._workers[key.encode("latin-1")]
        with self._changed:
            reason = "its answer is overdue although its heartbeat goes on"
            self._requeued(self._queue.expire(key, leases, reason, self._clock.monotonic()), worker, reason)

    def _wake_sleepers(self, now: float) -> None:
        with self._lock:
            buffered = self._queue.deliverable_batches
            wanted = [
                (peer, worker)
                for peer, worker in self._workers.items()
                if worker.asleep
                and not self._aside(worker, now)
                and (self._queue.has_work(worker.key) or self._can_hedge(worker, now))
            ]
            for _, worker in wanted:
                self._sleep(worker, False)
        for peer, _ in wanted:
            self._send(peer, Wake(buffered=buffered))

    def _aside(self, worker: _Worker, now: float) -> str:
        """Why the worker gets no work although there may be some; the last one of a group always does."""
        reason = self._quarantine.reason(worker.key, now)
        return reason if reason is not None and self._has_peer(worker) else ""

    def _has_peer(self, worker: _Worker) -> bool:
        """Whether another worker of the same teacher is here and in good standing."""
        now = self._clock.monotonic()
        return any(
            other is not worker
            and other.teacher == worker.teacher
            and self._quarantine.reason(other.key, now) is None
            for other in self._workers.values()
        )

    def _can_hedge(self, worker: _Worker, now: float) -> bool:
        return self._queue.can_hedge(worker.key, worker.batch_size, now, self._options.hedge_after_s)

    def _sleep(self, worker: _Worker, asleep: bool) -> None:
        self._asleep += int(asleep) - int(worker.asleep)
        worker.asleep = asleep

    def _drop(self, peer: bytes, reason: str, *, lost: bool) -> None:
        with self._changed:
            worker = self._workers.pop(peer, None)
            if worker is None:
                return
            self._sleep(worker, False)
            self._quarantine.forget(worker.key)
            outcome = (
                self._queue.lose(worker.key, reason, self._clock.monotonic())
                if lost
                else self._queue.leave(worker.key)
            )
            self._requeued(outcome, worker, reason)
        if lost:
            logger.warning(
                "worker %s is lost: %s; %d of its tasks requeued", worker.name, reason, outcome.requeued
            )
        else:
            logger.info("worker %s left: %s", worker.name, reason)

    def _requeued(self, outcome: Lost, worker: _Worker, reason: str) -> None:
        """Record what went back to the front, and raise poison in the loop. The lock is held."""
        if outcome.requeued:
            self.emit(
                "task_requeued",
                student=self._options.student,
                worker=worker.name,
                teacher=worker.teacher,
                tasks=outcome.requeued,
                reason=reason,
            )
        self._poisoned(outcome.poison)

    def _poisoned(self, tasks: Sequence[Poison]) -> None:
        """Give up on tasks, as the job asks for. The lock is held."""
        for poison in tasks:
            self.emit(
                "task_poisoned",
                student=self._options.student,
                teacher=poison.teacher,
                batch=poison.batch,
                start=poison.start,
                stop=poison.stop,
                error=_last_line(poison.attempts[-1]),
            )
            error = PoisonTaskError(
                poison.teacher, poison.batch, range(poison.start, poison.stop), poison.attempts
            )
            if self._options.skip_poison:
                self._open[poison.batch].poison = error
                self._queue.abandon(poison.batch)
            else:
                self._poison.setdefault(poison.batch, error)
            self._changed.notify_all()

    def _send(self, peer: bytes, message: Message, frames: Frames = ()) -> None:
        try:
            self._hub.send(peer, message, frames)
        except PeerUnreachableError as exc:
            dropped = self._workers.get(peer)
            if dropped is not None:
                self._unreachable[peer] = self._clock.monotonic()
                self._disconnected[peer] = dropped.process
                if len(self._disconnected) > _MOST_DISCONNECTED:
                    del self._disconnected[next(iter(self._disconnected))]
            self._drop(peer, str(exc), lost=True)
            return
        worker = self._workers.get(peer)
        if worker is not None:
            worker.last_sent = self._clock.monotonic()

    def _say_goodbye(self) -> None:
        for peer in list(self._workers):
            self._send(peer, Goodbye(id=self._options.student, reason="the loader was closed"))
        if self._enrolment.joined:
            while self._events:
                self._control.send(self._events.popleft())
        for message in self._enrolment.leave("the loader was closed"):
            self._control.send(message)

    def _raise_in_loop(self, exc: BaseException) -> None:
        with self._changed:
            self._error = exc
            self._changed.notify_all()

    # --- backpressure: every open batch is labelled and reading is paused -----------------------

    def _account(self) -> None:
        full = (
            self._queue.open_batches > 0
            and self._queue.labelled_batches == self._queue.open_batches
            and not self._queue.wants_batch()
        )
        if full and self._full_since is None:
            self._full_since = self._clock.monotonic()
        elif not full and self._full_since is not None:
            self._backpressure_s += self._full_for()
            self._full_since = None

    def _full_for(self) -> float:
        return 0.0 if self._full_since is None else self._clock.monotonic() - self._full_since


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2][:500]


def _key(peer: bytes) -> str:
    """A peer's address as the queue's name for it."""
    return peer.decode("latin-1")


def _cut(grants: Sequence[Grant], batches: Sequence[OpenBatch]) -> tuple[list[Task], list[memoryview]]:
    tasks, frames = [], []
    for grant, batch in zip(grants, batches, strict=True):
        specs, own = batch.cut(grant.start, grant.stop)
        tasks.append(
            Task(lease=grant.lease, samples=grant.stop - grant.start, alone=grant.alone, tensors=specs)
        )
        frames += own
    return tasks, frames
