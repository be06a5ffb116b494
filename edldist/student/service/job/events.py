"""What a student's label service tells the job's record, kept until the coordinator's link has taken it."""

from __future__ import annotations

from collections import deque

from edldist.clock import Clock
from edldist.student.queue.outcomes import Returned
from edldist.student.service.peers import ConnectedWorker
from edldist.wire.messages import Event, Scalar
from edldist.wire.transport import Link
from edldist.wording import in_words

__all__ = ["Events", "last_line"]


class Events:
    """Events of one student, oldest first. Owned by the I/O thread.

    A link that is full, as when the coordinator is away, takes nothing in: what it refused is offered again.

    Args:
        student: its id.
        job: the job that it belongs to, or empty.
    """

    def __init__(self, student: str, clock: Clock, job: str = "") -> None:
        self._student = student
        self._job = job
        self._clock = clock
        self._waiting: deque[Event] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def send(self, link: Link) -> None:
        """Hand over as many as the link takes."""
        while self._waiting and link.send(self._waiting[0]):
            self._waiting.popleft()

    def quarantined(self, worker: str, for_s: float, error: str) -> None:
        """A worker keeps failing, and gets no work for so many seconds."""
        self._add("teacher_quarantined", worker=worker, for_s=for_s, error=error)

    def put_aside(self, worker: ConnectedWorker, reason: str, retracted: int, consumed: int) -> None:
        """A worker does not answer as the others do.

        Args:
            retracted: labels of it that others make anew.
            consumed: labels of it that the loop has had, and that are in doubt.
        """
        self._add(
            "teacher_put_aside",
            student=self._student,
            worker=worker.name,
            teacher=worker.teacher,
            host=worker.host,
            reason=reason,
            retracted=retracted,
            consumed=consumed,
        )

    def readmitted(self, worker: str, teacher: str) -> None:
        """A worker that was put aside answers as the others do again."""
        self._add("teacher_readmitted", student=self._student, worker=worker, teacher=teacher)

    def requeued(self, outcome: Returned, worker: str, teacher: str, reason: str) -> None:
        """Tasks of a worker went back to the front, or were given up."""
        if outcome.requeued:
            self._add(
                "task_requeued",
                student=self._student,
                worker=worker,
                teacher=teacher,
                tasks=outcome.requeued,
                reason=reason,
            )
        self.poisoned(outcome)

    def poisoned(self, outcome: Returned) -> None:
        """Tasks were given up, because no attempt could label them."""
        for poison in outcome.poison:
            self._add(
                "task_poisoned",
                student=self._student,
                teacher=poison.teacher,
                batch=poison.batch,
                samples=in_words(poison.samples),
                error=last_line(poison.attempts[-1]),
            )

    def labels_missing(self, teacher: str, gone_s: float) -> None:
        """Batches go on without the labels of a group that has had no worker for so long."""
        self._add("labels_missing", student=self._student, teacher=teacher, gone_s=round(gone_s, 3))

    def labels_back(self, teacher: str, gone_s: float) -> None:
        """Labels of a group that was missing are used again."""
        self._add("labels_back", student=self._student, teacher=teacher, gone_s=round(gone_s, 3))

    def _add(self, event: str, **fields: Scalar) -> None:
        self._waiting.append(Event(event=event, t=self._clock.wall(), fields=fields, job=self._job))


def last_line(text: str) -> str:
    """The last line of a traceback, which is the error itself, cut to 500 characters."""
    return text.strip().rpartition("\n")[2][:500]
