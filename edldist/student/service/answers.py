"""What workers answer: labels go to their places, failures count against tasks and workers."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edldist.clock import Clock
from edldist.observe.repeats import Repeats
from edldist.student.queue.outcomes import Returned
from edldist.student.service.comparing import Comparing
from edldist.student.service.delivery import Delivery
from edldist.student.service.job.events import Events, last_line
from edldist.student.service.peers import ConnectedWorker, Peers
from edldist.student.service.standards import Standards
from edldist.student.service.trail import Trail
from edldist.wire.messages import Failure, Idle, Labels, Message, Refused, Result
from edldist.wire.transport import Sender

__all__ = ["Answers"]

logger = logging.getLogger(__name__)


class Answers:
    """Takes the answers of workers that are connected. Owned by the I/O thread.

    Args:
        delivery, peers, events, comparing, standards, trail: those of the service.
        turn_away: refuses a worker that was taken.
        send: says something to a worker.
    """

    def __init__(
        self,
        delivery: Delivery,
        peers: Peers,
        events: Events,
        comparing: Comparing,
        standards: Standards,
        trail: Trail,
        clock: Clock,
        turn_away: Callable[[ConnectedWorker, Refused], None],
        send: Callable[[Sender, Message], None],
    ) -> None:
        self._delivery = delivery
        self._peers = peers
        self._events = events
        self._comparing = comparing
        self._standards = standards
        self._trail = trail
        self._clock = clock
        self._turn_away = turn_away
        self._send = send
        self._failures = Repeats(logger)

    def close(self) -> None:
        """No more will come."""
        self._failures.end()

    def labelled(
        self, worker: ConnectedWorker, message: Labels, frames: list[memoryview], own_memory: bool
    ) -> None:
        """Labels came."""
        position, now = 0, self._clock.monotonic()
        for result in message.results:
            its_frames = frames[position : position + len(result.tensors)]
            position += len(result.tensors)
            if self._comparing.answered(worker, result, its_frames):
                continue
            if (objection := self._standards.objection(worker, result, now)) is None:
                self._place(worker, result, its_frames, own_memory)
            elif worker.labelled:
                for row in result.rows:
                    self._fail(worker, row.lease, objection.reason)
            else:
                # Its very first labels: the worker is the wrong one, not the samples.
                self._turn_away(worker, objection)
                return
        if self._trail.tape.on:
            self._trail.placed(worker, message, frames)

    def failed(self, worker: ConnectedWorker, message: Failure) -> None:
        """Its model raised."""
        for lease in message.leases:
            if not self._comparing.failed(worker, lease, message.error):
                self._fail(worker, lease, message.error, final=message.final, certain=message.certain)

    def exclude(self, worker: ConnectedWorker) -> None:
        """A worker in quarantine gets nothing."""
        self._peers.exclude(worker)
        self._delivery.quarantine(worker.key, worker.room)

    def record(self, outcome: Returned, worker: ConnectedWorker, reason: str) -> None:
        """Tell the coordinator what came back from a worker."""
        self._events.requeued(outcome, worker.name, worker.teacher, reason)

    def _place(
        self, worker: ConnectedWorker, result: Result, frames: list[memoryview], own_memory: bool
    ) -> None:
        late = self._standards.undecided(worker.teacher) and self._delivery.leases_of(worker.key).isdisjoint(
            row.lease for row in result.rows
        )
        refused = self._delivery.place(worker.key, result, frames, own_memory, worker.keep)
        for lease, error in refused:
            self._fail(worker, lease, f"worker {worker.name}: {error}")
        if not refused:
            self._peers.succeeded(worker)
            worker.labelled = True
            self._standards.used_of(worker, result, late)

    def _fail(
        self, worker: ConnectedWorker, lease: int, error: str, *, final: bool = False, certain: bool = False
    ) -> None:
        # Labels of its group have shown that the model is well: then this worker may be the one that is not.
        final = final and self._standards.undecided(worker.teacher)
        outcome = self._delivery.fail(worker.key, lease, error, final=final, certain=certain)
        if outcome is None:
            return
        line = last_line(error)
        self._failures.warn(f"worker {worker.name} failed a task: {line}", of=worker.name)
        now = self._clock.monotonic()
        blameless = [key for poison in outcome.poison for key in poison.blameless]
        for key in blameless:
            if key != worker.key:
                self._peers.acquit(key)
        for_s = None if worker.key in blameless else self._peers.failed(worker, line, now)
        if for_s is not None:
            self._events.quarantined(worker.name, for_s, line)
            logger.warning("worker %s gets no work for %.0f s: it keeps failing", worker.name, for_s)
            self.exclude(worker)
        self.record(outcome, worker, "the model raised")
        if for_s is not None:
            # It may have been asleep already, and would not ask again.
            reason = self._peers.quarantined(worker, now)
            self._send(worker.peer, Idle(seq=worker.pull_seen, buffered=0, quarantine=reason))
