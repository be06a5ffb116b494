"""Asks workers what they hold, and makes good what a broken connection has swallowed."""

from __future__ import annotations

from collections.abc import Callable

from edldist.student.service.comparing import Comparing
from edldist.student.service.delivery import Delivery
from edldist.student.service.job.events import Events
from edldist.student.service.peers import ConnectedWorker
from edldist.wire.messages import Idle, Message, Ping, Pong
from edldist.wire.transport import Sender

__all__ = ["Pinging"]


class Pinging:
    """Pings of one student, and what follows from their answers. Owned by the I/O thread.

    Args:
        delivery, comparing, events: of the student.
        send: to a worker.
    """

    def __init__(
        self,
        delivery: Delivery,
        comparing: Comparing,
        events: Events,
        send: Callable[[Sender, Message], None],
    ) -> None:
        self._delivery = delivery
        self._comparing = comparing
        self._events = events
        self._send = send

    def held(self, worker: ConnectedWorker) -> frozenset[int]:
        """All leases that a worker has not answered: of tasks, and of what it is asked beside them."""
        return self._delivery.leases_of(worker.key) | self._comparing.leases_of(worker)

    def ping(self, worker: ConnectedWorker) -> None:
        """Ask a worker what it holds; one that was killed is dropped by that."""
        asleep = self._delivery.asleep(worker.key)
        seq = worker.pings.send(self.held(worker), worker.pull_seen, not asleep)
        self._send(worker.peer, Ping(seq=seq, buffered=self._delivery.buffered))

    def reconcile(self, worker: ConnectedWorker, pong: Pong) -> None:
        """Make good what a broken connection swallowed (see ``Pong``)."""
        missing = worker.pings.answered(pong, worker.pull_seen)
        if missing is None:
            return
        self._comparing.lost(worker, missing.leases)
        if missing.leases and (gone := missing.leases & self._delivery.leases_of(worker.key)):
            reason = "its connection broke and the task or its labels were lost"
            returned = self._delivery.give_back(worker.key, sorted(gone))
            self._events.requeued(returned, worker.name, worker.teacher, reason)
        if missing.pull:
            self._delivery.sleep(worker.key, worker.room)
            self._send(worker.peer, Idle(seq=missing.pull, buffered=0))
        elif missing.wake:
            self._delivery.sleep(worker.key, worker.room)
