"""The student's server: one I/O thread that owns the sockets and knows the workers.

It answers workers out of ``Delivery``, which it shares with the training loop's thread.

What happens when a party dies:

* worker killed: the next probe (every ``PROBE_S`` to who holds a lease) raises, its tasks requeue;
* worker frozen or cut off: silent for ``heartbeat_ttl_s``, the same (one whose model keeps its interpreter
  is vouched for, and not silent: ``wire/voucher.py``);
* worker's compute stuck: its leases pass their deadlines, others get the tasks too, and it gets no more;
* another rank of the group lost: the coordinator says ``Regroup``, and this process's answer to a
  ``GroupChanged`` is called here: it leaves at once, whatever its training thread waits for, and its
  agent starts it anew in a new group;
* coordinator gone: nothing changes here, the enrolment keeps trying;
* no worker of a group is what this student wants: they stay, and the loop gets the reason (``unsuited``);
* the last worker of a group gone: batches wait for one, or go on without (``AbsentGroups``);
* the trainer leaves its loop: ``clear``; late answers are counted and dropped;
* this process dies: workers find the link dead; all state was its own.
"""

from __future__ import annotations

import functools
import logging
import os
import random
from collections.abc import Callable, Mapping

from edldist.address import Address, parse_address
from edldist.clock import Clock
from edldist.errors import LoaderClosedError, PeerUnreachableError, UnsuitableTeacherError
from edldist.labels.fingerprint import Fingerprint
from edldist.labels.packing import Codec
from edldist.lifecycle.group_change import GroupChangeHandler, group_changed
from edldist.observe.stages import times_of
from edldist.store.shelf import Shelf
from edldist.student.batch.batch import OpenBatch
from edldist.student.service.absent_groups import AbsentGroups
from edldist.student.service.answers import Answers
from edldist.student.service.comparing import Comparing
from edldist.student.service.delivery import Delivery
from edldist.student.service.granting import Granting
from edldist.student.service.job.job_link import JobLink, Whereabouts
from edldist.student.service.job.needs import Needs
from edldist.student.service.kept.kept_labels import KeptLabels
from edldist.student.service.kept.store_use import StoreUse
from edldist.student.service.options import ServiceOptions
from edldist.student.service.peers import ConnectedWorker, Peers
from edldist.student.service.pinging import Pinging
from edldist.student.service.probing import Probing
from edldist.student.service.standards import Standards
from edldist.student.service.trail import IO, LOOP, QUEUE, Trail
from edldist.tracing.recorder import Recorder
from edldist.wire.messages import (
    Failure,
    Goodbye,
    Heartbeat,
    Hello,
    Idle,
    Labels,
    Message,
    Pong,
    Pull,
    Refused,
    Return,
    Scalar,
    TokensTold,
    TokensWanted,
    Unknown,
    Vouch,
    Wake,
)
from edldist.wire.transport import Outgoing, Received, Sender, Transport, closed_on_error
from edldist.wire.turns import ServiceThread

__all__ = ["StudentService"]

logger = logging.getLogger(__name__)

_TURN_MESSAGES = 256


class StudentService:
    """Delivers labels to one training loop."""

    def __init__(
        self,
        options: ServiceOptions,
        transport: Transport,
        clock: Clock,
        process: str,
        host: str,
        pid: int,
        first_lease: int | None = None,
        on_group_change: GroupChangeHandler = group_changed,
    ) -> None:
        """Bind, and be ready for ``start``, or for turns that somebody else calls.

        Args:
            process, host, pid: of this process.
            first_lease: leases count up from here. None: from anywhere, which tells the leases of two
                lives of a student apart.
            on_group_change: what this process does when the coordinator says that its group lost a rank.
        """
        self._options = options
        self._clock = clock
        self._pid = pid
        self.recorder = Recorder(clock.monotonic, (LOOP, QUEUE, IO))
        self.delivery = Delivery(
            *(options.teachers, options.flow, clock),
            random.SystemRandom().randrange(1, 1 << 48) if first_lease is None else first_lease,
            options.max_frame_bytes,
            options.skip_poison,
            rolling=options.versions,
            hand_on=options.hand_on,
            tape=self.recorder[QUEUE],
        )
        self._trail = Trail(self.recorder)
        self._granting = Granting(options, self.delivery, self._trail)
        self._peers = Peers()
        self._standards = Standards(options)
        self._kept = KeptLabels(options, self._standards)
        self._stopping = False
        self.extra_stats: Callable[[], dict[str, Scalar]] = dict
        with closed_on_error(transport.poller()) as self._poller:
            self._hub = self._poller.bind(options.bind)
            link = self._poller.connect(options.coordinator, options.student)
            self.address = self._hub.address
            if options.advertise is not None:
                self.address = Address(options.advertise, parse_address(self.address, "address").port).url
            where = Whereabouts(self.address, process, host, pid)
            self._needs = Needs(options.teachers)
            self._job = JobLink(
                options, where, link, clock, self._heartbeat, on_group_change, self.recorder, self.delivery
            )
            self._events = self._job.events
            now = clock.monotonic()
            absent = AbsentGroups(options.skip_after_s, self.delivery, self._events, now)
            shared = self.delivery, self._peers, self._events
            self._comparing = Comparing(options, shared, clock, self.codec, self._send)
            self._answers = Answers(
                *(*shared, self._comparing, self._standards, self._trail, clock),
                *(self._turn_away, self._send),
            )
            self._pinging = Pinging(self.delivery, self._comparing, self._events, self._send)
            self._probing = Probing(
                *(options, shared, self._comparing, self._standards, self._answers, self._pinging, absent),
                *(now, functools.partial(self._drop, lost=True), self._reach),
            )
            self._thread = ServiceThread("edldist-student-io", self, self._poller, clock)

    def start(self) -> None:
        """Begin to serve, in a thread of this object's own."""
        self._thread.start()

    # --- the trainer's thread -----------------------------------------------------------------

    def offer(self, batch: OpenBatch, looked_up: Callable[[OpenBatch], None] | None = None) -> None:
        """Append a batch to the queue (see ``Delivery.offer``).

        Args:
            looked_up: is told before that, once its labels were looked for in the store.
        """
        self._comparing.see(batch)
        if self._kept.shelves is not None:
            self._kept.shelves.look_up(batch)
            if looked_up is not None:
                looked_up(batch)
        if self._options.fallback is not None:
            self._options.fallback.settle(batch)
        if self.delivery.offer(batch):
            self._poller.wake()

    @property
    def shelves(self) -> dict[str, Shelf]:
        """Where labels of each teacher are kept, as far as that is known; of none without a store."""
        return self._kept.open_now()

    def stats(self) -> dict[str, Scalar]:
        """Figures of the queue and of the workers that serve it."""
        own = {"teachers": len(self._peers), "garbage": self._hub.garbage} | self._poller.traffic.as_stats()
        shed = self._job.shedding.stats(self._clock.monotonic()) | self._comparing.stats()
        return self.delivery.stats() | own | self._kept.stats() | shed | self.extra_stats()

    def teachers(self) -> int:
        """Number of connected workers."""
        return len(self._peers)

    def missing_teachers(self) -> dict[str, str]:
        """Groups of which no worker is connected, each with why the last one was refused, if it was."""
        missing = [name for name in self._options.wanted if name not in self._peers.teachers()]
        return {name: self._standards.refused(name) for name in missing}

    def unsuited(self, since: float) -> str:
        """Why no worker that is here suits this student, as seen after ``since``; empty if one may."""
        return self._probing.unsuited(since)

    def groups_here(self) -> list[str]:
        """Teacher groups that were there when a wanted one was not, as the coordinator said last."""
        return self._job.groups_here

    def codec(self, teacher: str) -> Codec:
        """The codec of a group of which there are labels."""
        return self._standards.codec(teacher)

    def used(self) -> dict[str, Fingerprint]:
        """What the labels that were used came from, by teacher group."""
        return self._kept.used()

    def expect(self, former: Mapping[str, Fingerprint]) -> None:
        """Take none but workers like those that labelled for a checkpoint, from the next message on.

        What the queue holds by now may be of others: to be followed by ``delivery.clear``.
        """
        self._kept.expect(former)
        self._poller.wake()

    def hand_on(self) -> StoreUse | None:
        """The labels that are here, for the next generation's service; None where a store has them."""
        return self._kept.hand_on(self.delivery)

    def take_on(self, handed: StoreUse) -> None:
        """Find labels that another generation's service handed on. Before anything is read."""
        self._kept.take_on(handed)

    @property
    def forked(self) -> bool:
        """Whether this is a forked child of the process that made it."""
        return os.getpid() != self._pid

    def close(self) -> None:
        """Say goodbye and end the I/O thread. In a forked child, which has no such thread: nothing."""
        if self.forked or self._stopping:
            return
        self._stopping = True
        self._thread.close()

    # --- the I/O thread, or whoever calls the turns ----------------------------------------------

    def turn(self, now: float) -> float:
        """Answer workers and the coordinator, and probe those who are due for it (see ``wire.turns``)."""
        self._job.turn(now, served=len(self._peers) > 0)
        self._heed_former()
        self._read_workers()
        self._wake_sleepers(thorough=self._probing.turn(now))
        return min(self._probing.next_s, now + self._job.next_due_s(now))

    def leave(self) -> None:
        """Say goodbye to everyone, and let the loop know."""
        for worker in self._peers:
            self._send(worker.peer, Goodbye(id=self._options.student, reason="the loader was closed"))
        self._job.leave("the loader was closed")
        self._answers.close()
        self.delivery.stop(LoaderClosedError(f"this {self._options.called} was closed; make a new one"))

    def fail(self, error: BaseException) -> None:
        """Raise in the loop what ended a turn."""
        self.delivery.stop(error)

    def _heartbeat(self) -> Heartbeat:
        stats, stages = self.stats(), times_of(self.delivery.stages)
        now, oldest = self._clock.monotonic(), self._standards.oldest_version
        needs = self._needs.told(now, stats, self.delivery.backlog(), oldest)
        starved = self._needs.starved
        return Heartbeat(id=self._options.student, stats=stats, needs=needs, starved=starved, stages=stages)

    def _read_workers(self) -> None:
        for _ in range(_TURN_MESSAGES):
            received = self._hub.receive()
            if received is None:
                return
            self._heed_former()  # before anything that may answer a batch which was read after a restore
            worker = self._peers.get(received.sender)
            if worker is not None:
                worker.last_heard = self._clock.monotonic()
            self._take(received, worker)

    def _heed_former(self) -> None:
        """Let go of workers that are none of those that were expected meanwhile."""
        while former := self._standards.heed():
            now = self._clock.monotonic()
            for worker in [worker for worker in self._peers if worker.teacher in former]:
                if (refusal := self._standards.admit_again(worker, now)) is not None:
                    self._turn_away(worker, refusal)

    def _take(self, received: Received, worker: ConnectedWorker | None) -> None:
        message = received.message
        if isinstance(message, Hello):
            self._greet(received.sender, message)
        elif isinstance(message, TokensTold):
            if (hello := self._standards.told(received.sender, message, received.frames)) is not None:
                self._greet(received.sender, hello)
        elif isinstance(message, Vouch):
            self._peers.vouched(received.sender, message, self._clock.monotonic())
        elif worker is None:
            self._answer_stranger(received.sender, message)
        elif isinstance(message, Pull):
            self._on_pull(worker, message)
        elif isinstance(message, Labels):
            self._answers.labelled(worker, message, received.frames, received.own_memory)
            if message.pull is not None and self._peers.get(received.sender) is worker:
                self._on_pull(worker, message.pull)
        elif isinstance(message, Failure):
            self._answers.failed(worker, message)
        elif isinstance(message, Return):
            self._comparing.lost(worker, message.leases)
            self._answers.record(
                self.delivery.give_back(worker.key, message.leases), worker, "it gave them back"
            )
        elif isinstance(message, Goodbye):
            self._drop(worker, message.reason or "it said goodbye", lost=False)
        elif isinstance(message, Pong):
            self._pinging.reconcile(worker, message)
        elif isinstance(message, Refused) and self._options.fallback is not None:
            self.fail(UnsuitableTeacherError(f"{message.reason}. Change the job's degrade"))
        else:
            logger.debug("worker %s sent a %s, which is none of ours", worker.name, type(message).__name__)

    def _greet(self, peer: Sender, hello: Hello) -> None:
        now = self._clock.monotonic()
        before = self._peers.get(peer)
        if before is not None:
            # The same process lives and its tasks killed nobody: one side was suspended, or their connection
            # broke.
            lost = before.process != hello.process
            self._drop(before, "it was started anew" if lost else "it greets anew", lost=lost)
        self._kept.heed()
        for former in self._peers.namesakes(hello):  # it was started anew, or one of both was written off
            self._pinging.ping(former)
        if isinstance(answer := self._standards.admit(peer, hello, now), TokensWanted):
            self._send(peer, answer)
            return
        if answer is not None:
            self._refuse(peer, hello.worker, answer)
            return
        worker = self._peers.add(peer, hello, now)
        self._kept.joined(worker, self.delivery)
        alive = self._peers.survived(peer, hello.process)
        self.delivery.join(worker.key, worker.teacher, worker.name, forgiven=alive)
        self._comparing.join(worker)
        logger.info("teacher worker %s (%s) connected", hello.worker, hello.teacher)
        for stale, reason in self._standards.stale(self._peers):
            self._turn_away(stale, reason)
        self.delivery.retire(worker.teacher, self._standards.oldest_version(worker.teacher))
        self._send(peer, self._options.welcome(self._probing.idle_ping_s, worker.teacher))

    def _refuse(self, peer: Sender, worker: str, refusal: Refused) -> None:
        logger.warning("refused teacher worker %s: %s", worker, refusal.reason)
        self._send(peer, refusal)

    def _turn_away(self, worker: ConnectedWorker, refusal: Refused) -> None:
        """Refuse a worker that was taken."""
        self._refuse(worker.peer, worker.name, refusal)
        self._drop(worker, refusal.reason, lost=False)

    def _reach(self, peer: Sender, message: Message) -> bool:
        """Say something to who is none of the workers; whether anybody is connected there."""
        try:
            self._hub.send(peer, message)
        except PeerUnreachableError:
            return False
        return True

    def _answer_stranger(self, peer: Sender, message: Message) -> None:
        """A worker that was written off speaks again: its answers are late, it may greet anew."""
        if isinstance(message, Labels):
            self.delivery.count_late(sum(len(result.rows) for result in message.results))
        if not isinstance(message, Goodbye):
            self._send(peer, Unknown())

    def _on_pull(self, worker: ConnectedWorker, pull: Pull) -> None:
        worker.pull_seen = pull.seq
        worker.room = pull.room
        reason = self._peers.quarantined(worker, self._clock.monotonic())
        if reason:
            self._answers.exclude(worker)
            self._send(worker.peer, Idle(seq=pull.seq, buffered=self.delivery.buffered, quarantine=reason))
            return
        reply = self._comparing.reply(worker, pull)
        self._send(worker.peer, *(self._granting.reply(worker, pull) if reply is None else reply))

    def _wake_sleepers(self, thorough: bool) -> None:
        for key in self.delivery.rouse(self._options.hedge_after_s, thorough):
            self._send(self._peers.of_key(key).peer, Wake(buffered=self.delivery.buffered))

    def _drop(self, worker: ConnectedWorker, reason: str, *, lost: bool) -> None:
        if not self._peers.drop(worker):
            return
        self._comparing.forget(worker, lost)
        if worker.teacher not in self._peers.teachers():
            self._kept.deserted(worker.teacher)
        outcome = self.delivery.lose(worker.key, reason) if lost else self.delivery.leave(worker.key)
        self._answers.record(outcome, worker, reason)
        if lost:
            logger.warning(
                "worker %s is lost: %s; %d of its tasks requeued", worker.name, reason, outcome.requeued
            )
        else:
            logger.info("worker %s left: %s", worker.name, reason)

    def _send(self, peer: Sender, message: Message, frames: Outgoing = ()) -> None:
        worker = self._peers.get(peer)
        try:
            self._hub.send(peer, message, frames)
        except PeerUnreachableError as exc:
            if worker is not None:
                self._peers.cut_off(worker, self._clock.monotonic())
                self._drop(worker, str(exc), lost=True)
            return
        if worker is not None:
            worker.last_sent = self._clock.monotonic()
            if frames and self._trail.tape.on:
                self._trail.sent(worker, message, frames)
