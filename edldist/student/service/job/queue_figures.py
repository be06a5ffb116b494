"""What a student tells of its label queue, in figures."""

from __future__ import annotations

from edldist.student.queue.queue import LabelQueue
from edldist.wire.messages import Scalar

__all__ = ["queue_figures"]


def queue_figures(queue: LabelQueue) -> dict[str, Scalar]:
    """Figures of a queue. Among the ``duplicates`` are the ``late`` ones, of workers written off before."""
    return {
        "done": queue.done,
        "failed": queue.failed,
        "requeued": queue.requeued,
        "duplicates": queue.duplicates,
        "late": queue.late,
        "hedged": queue.hedged,
        "retracted": queue.retracted,
        "coalesced": queue.following.samples.coalesced,
        "leased": len(queue.open_leases),
        "buffered": queue.labelled_batches,
        "open": queue.open_batches,
        "queue_bytes": queue.nbytes,
    }
