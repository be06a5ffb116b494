"""What a student's queue has done, in figures, and for how long it has been full. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from edldist.student.batch.batch import OpenBatch
from edldist.student.queue.fullness import Fullness
from edldist.student.queue.queue import LabelQueue
from edldist.student.service.job.needs import Backlog
from edldist.student.service.job.queue_figures import queue_figures
from edldist.tracing.kinds import Kind
from edldist.tracing.tape import Tape
from edldist.wire.messages import Scalar

__all__ = ["Account"]


class Account:
    """Reads one queue. Owned by whoever guards that.

    Args:
        queue: what is counted.
        tape: where it is written down that the queue was full, while somebody traces.

    Attributes:
        stale: samples of which labels were asked for again, because a newer version labels them.
    """

    def __init__(self, queue: LabelQueue, tape: Tape) -> None:
        self._queue = queue
        self._tape = tape
        self._fullness = Fullness()
        self.stale = 0

    def note(self, now: float) -> None:
        """The queue has changed."""
        self._note(self._queue.full(), now)

    def _note(self, full: bool, now: float) -> None:
        since = self._fullness.note(full, now)
        if since is not None and self._tape.on:
            self._tape.write(Kind.FULL, since, now)

    def stats(self, now: float) -> dict[str, Scalar]:
        """Figures of the queue."""
        self._note(False, now)  # a trace is told of it in pieces, if it lasts
        self._note(self._queue.full(), now)
        own = {"stale": self.stale, "backpressure_s": round(self._fullness.seconds(now), 6)}
        return queue_figures(self._queue) | own

    def backlog(self, batches: Sequence[OpenBatch], teachers: Sequence[str]) -> Backlog:
        """The open batches, and what each teacher has to do with them."""
        wanted = {teacher: sum(batch.wanted_of(teacher).missing for batch in batches) for teacher in teachers}
        lacking = {teacher: self._queue.lacking(teacher) for teacher in teachers}
        return Backlog(len(batches), sum(batch.samples for batch in batches), wanted, lacking)
