"""What becomes of tasks that came back: others get them, nobody does for now, or they are poison. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from edldist.student.queue.flow import Flow
from edldist.student.queue.outcomes import Poison, Returned
from edldist.student.queue.task import Task
from edldist.student.queue.track import Track

__all__ = ["Blame"]


class Blame:
    """Decides by what speaks against a task (see ``Task``).

    Args:
        flow: how many attempts, and how long nobody may answer.
        tracks: where tasks wait, by teacher.
        condemned: told of samples that are poison: their teacher, their batch, and which.
    """

    def __init__(
        self,
        flow: Flow,
        tracks: Mapping[str, Track],
        condemned: Callable[[str, int, Sequence[int]], None],
    ) -> None:
        self._flow = flow
        self._condemned = condemned
        self._tracks = tracks
        # Invariant: a task in here does not wait, and no worker holds it in time.
        self._withheld: dict[Task, None] = {}
        # Batches of which something is poison, or that nobody gets any more: nothing will label them.
        self._given_up: set[int] = set()
        self.requeued = 0

    def __iter__(self) -> Iterator[Task]:
        """The tasks that are withheld."""
        return iter(list(self._withheld))

    def reconsider(self, tasks: Sequence[Task], now: float) -> Returned:
        """Decide what becomes of tasks on which nobody may be at work in time any more."""
        poison = []
        requeued = 0
        for task in tasks:
            if not task.idle:
                continue
            attempts = task.attempts(now)
            if len(attempts) < self._flow.max_attempts and not task.hopeless:
                self._withheld.pop(task, None)
                if not task.waiting:
                    requeued += 1
                    self._tracks[task.teacher].put_back(task)
                continue
            if task.waiting:
                self._tracks[task.teacher].remove(task)
            if task.hopeless or len(task.failures) >= self._flow.max_attempts:
                self._withheld.pop(task, None)
                poison.append(self._poison(task, task.failures))
            else:
                self._withheld[task] = None
        self.requeued += requeued
        return Returned(requeued, poison)

    def verdicts(self, now: float) -> list[Poison]:
        """Tasks that are withheld, and the time of whatever speaks against them is up."""
        condemned = [task for task in self._withheld if now >= task.verdict_at(self._flow.hang_s)]
        for task in condemned:
            del self._withheld[task]
        return [self._poison(task, task.attempts(now)) for task in condemned]

    def labelled(self, task: Task) -> None:
        """A task has labels: nobody else needs it."""
        if task.waiting:
            self._tracks[task.teacher].remove(task)
        elif self._withheld:
            self._withheld.pop(task, None)

    def withheld(self, batch: int, teacher: str) -> int:
        """How many samples of a batch are withheld from the workers of a teacher."""
        return sum(t.samples for t in self._withheld if (t.batch, t.teacher) == (batch, teacher))

    def drop(self, batch: int, teacher: str) -> None:
        """Nobody needs the labels of a teacher for a batch any more."""
        for task in [t for t in self._withheld if (t.batch, t.teacher) == (batch, teacher)]:
            del self._withheld[task]

    def give_up(self, batch: int) -> None:
        """Nobody gets anything of a batch any more."""
        for task in [task for task in self._withheld if task.batch == batch]:
            del self._withheld[task]
        self._given_up.add(batch)

    def forget(self, batch: int) -> None:
        """A batch is gone."""
        self._given_up.discard(batch)

    def clear(self) -> None:
        self._withheld.clear()
        self._given_up.clear()

    def gave_up(self, batch: int) -> bool:
        """Whether something of a batch will not be labelled."""
        return batch in self._given_up

    def _poison(self, task: Task, attempts: Sequence[str]) -> Poison:
        self._given_up.add(task.batch)
        blameless = task.failed_by if task.hopeless else ()
        samples = range(task.start, task.stop)
        self._condemned(task.teacher, task.batch, samples)
        return Poison(task.teacher, task.batch, samples, list(attempts), blameless)

    def validate(self, now: float) -> None:
        """Check the invariants."""
        for task in self._withheld:
            assert task.idle and not task.waiting
            assert len(task.attempts(now)) >= self._flow.max_attempts
