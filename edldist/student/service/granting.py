"""What a pull is answered: tasks, or that there is nothing now."""

from __future__ import annotations

from edldist.student.batch.grouping import group
from edldist.student.service.delivery import Delivery
from edldist.student.service.options import ServiceOptions
from edldist.student.service.peers import ConnectedWorker
from edldist.student.service.trail import Trail
from edldist.wire.messages import Idle, Pull, Tasks
from edldist.wire.transport import Outgoing

__all__ = ["Granting"]


class Granting:
    """Leases tasks to who pulls. Owned by the I/O thread."""

    def __init__(self, options: ServiceOptions, delivery: Delivery, trail: Trail) -> None:
        self._options = options
        self._delivery = delivery
        self._trail = trail

    def reply(self, worker: ConnectedWorker, pull: Pull) -> tuple[Tasks | Idle, Outgoing]:
        """The answer to a pull, and its frames; with nothing to give, the worker sleeps from now on."""
        since = self._trail.tape.now() if self._trail.tape.on else None
        leased = self._delivery.lease(worker.key, pull.room, self._options.hedge_after_s)
        if not leased.grants:
            return Idle(seq=pull.seq, buffered=leased.buffered), ()
        groups, frames = group(leased.grants, leased.batches, self._options.max_frame_bytes)
        if since is not None:
            self._trail.leased(worker, leased.grants, since)
        return Tasks(seq=pull.seq, groups=groups, buffered=leased.buffered), frames
