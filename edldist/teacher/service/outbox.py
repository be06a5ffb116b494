"""What a worker has done, on its way to the students who asked for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from edldist.clock import Clock
from edldist.teacher.passage import Passage, Passages
from edldist.teacher.service.ledger import Ledger
from edldist.teacher.service.student import ServedStudent
from edldist.teacher.service.trail import Trail
from edldist.teacher.tasks import Answer, Level, Outcome
from edldist.wire.messages import Failure, Labels, Result, Return

__all__ = ["Outbox"]

_MESSAGE_BYTES = 1 << 20


class Outbox:
    """Outcomes of passes that were not sent yet, in their order.

    Owned by the I/O thread; the compute thread puts in. It holds no more than the worker does: a task counts
    as held until its answer has left here, and a worker asks for no more than it may hold.

    Args:
        students: those that there are links to; changes with them.
        ledger: what is held of whom.
        clock: the time.
        trail: is told what leaves, while somebody traces.
        passages: is told when what was timed has left.
        learn: is told what labels there are.
    """

    def __init__(
        self,
        students: Mapping[str, ServedStudent],
        ledger: Ledger,
        clock: Clock,
        trail: Trail,
        passages: Passages,
        learn: Callable[[Result], None],
    ) -> None:
        self._students = students
        self._ledger = ledger
        self._clock = clock
        self._trail = trail
        self._passages = passages
        self._learn = learn
        self._outcomes: deque[Outcome] = deque()

    def __len__(self) -> int:
        """Number of passes whose answers wait here."""
        return len(self._outcomes)

    @property
    def level(self) -> Level:
        """What waits here; its bytes are those of labels."""
        answers = [answer for outcome in tuple(self._outcomes) for answer in outcome.answers]
        rows = sum([task.rows for answer in answers for task in answer.tasks])
        return Level(rows, sum([frame.nbytes for answer in answers for frame in answer.frames]))

    def put(self, outcome: Outcome) -> None:
        """A pass is over. For the compute thread."""
        self._outcomes.append(outcome)

    def carry(self, asks: bool) -> None:
        """Carry away what is done, and ask for more. To the same student both go as one message.

        Of large labels those of a pass: a message arrives when all of it is there, so a student would have
        to wait for the last ones before it can place the first, and this worker for the pull behind them.

        Args:
            asks: whether anything may be asked for.
        """
        answers: list[Answer] = []
        timed: list[Passage] = []
        nbytes = 0
        while self._outcomes and nbytes < _MESSAGE_BYTES:
            passed, passage = self._outcomes.popleft()
            nbytes += sum([frame.nbytes for answer in passed for frame in answer.frames])
            answers += passed
            if passage is not None:
                passage.began("send", self._clock.monotonic())
                timed.append(passage)
        labelled = {
            name: self._close([answer for answer in answers if answer.tasks[0].student == name])
            for name in dict.fromkeys(answer.tasks[0].student for answer in answers)
        }
        pulls = self._ledger.pulls() if asks else {}
        for name, (results, frames) in labelled.items():
            if results:
                riding = pulls[name].pop(0) if name in pulls else None
                since = self._trail.tape.now() if self._trail.tape.on else None
                self._students[name].link.send(Labels(results=results, pull=riding), frames)
                if since is not None:
                    self._trail.returned(name, results, frames, since)
        for passage in timed:
            passage.ended("send", self._clock.monotonic())
            self._passages.left(passage)
            self._ledger.weighed((passage.bytes_in + passage.bytes_out) / max(1, passage.rows))
        for name, others in pulls.items():
            for pull in others:
                self._students[name].link.send(pull)

    def _close(self, answers: Sequence[Answer]) -> tuple[list[Result], list[memoryview]]:
        """Account for the answers to one student: failures leave at once, labels are returned."""
        name = answers[0].tasks[0].student
        student = self._students.get(name)
        results: list[Result] = []
        frames: list[memoryview] = []
        for answer in answers:
            # All of a pass are wanted, or none is: a student drops what it held of a worker at once.
            wanted = self._ledger.close(answer.tasks)
            if student is None or not wanted:
                continue
            if answer.result is None:
                leases = [task.lease for task in wanted]
                error = answer.error[-60_000:]
                failure = Failure(leases=leases, error=error, final=answer.final, certain=answer.certain)
                student.link.send(failure if error else Return(leases=leases))
                continue
            results.append(answer.result)
            frames += answer.frames
            if wanted[0].compared:
                continue  # no labels: they say nothing of the worker's outputs, nor of its pace
            self._learn(answer.result)
            self._ledger.labelled(wanted, answer.result.compute_s)
        return results, frames
