"""Which worker has labelled what of the batches that the loop has not had yet. Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from edldist.student.queue.task import Task
from edldist.student.queue.wanted import Wanted

__all__ = ["Labelled", "Provenance"]

Pieces = Callable[[str, int], Sequence[tuple[int, int]]]


class Labelled(NamedTuple):
    """Samples ``start`` to ``stop`` of a batch have labels of a teacher's worker."""

    worker: str
    teacher: str
    batch: int
    start: int
    stop: int
    wanted: Wanted

    @classmethod
    def by(cls, worker: str, task: Task) -> Labelled:
        return cls(worker, task.teacher, task.batch, task.start, task.stop, task.wanted)

    @property
    def samples(self) -> int:
        return self.stop - self.start


class Provenance:
    """Notes who labelled what, and how much of each worker the loop has had."""

    def __init__(self) -> None:
        # Invariant: of open batches, and of each what has labels, once.
        self._of_batch: dict[int, list[Labelled]] = {}
        self._consumed: Counter[str] = Counter()

    def add(self, labelled: Labelled) -> None:
        self._of_batch.setdefault(labelled.batch, []).append(labelled)

    def delivered(self, batch: int) -> None:
        """The loop has a batch."""
        for each in self._of_batch.pop(batch, ()):
            self._consumed[each.worker] += each.samples

    def consumed(self, worker: str) -> int:
        """How many labels of a worker the loop has had."""
        return self._consumed[worker]

    def left(self, worker: str) -> None:
        """A worker is gone: what it labelled stays, and nobody asks how much it was."""
        del self._consumed[worker]

    def take_back(self, worker: str) -> list[Labelled]:
        """All that a worker labelled of open batches, which counts as labelled no more."""
        taken = []
        for batch, all_of_it in list(self._of_batch.items()):
            its = [each for each in all_of_it if each.worker == worker]
            if its:
                taken += its
                self._of_batch[batch] = [each for each in all_of_it if each.worker != worker]
        return taken

    def forget(self, batch: int, teacher: str) -> None:
        """All of a batch that has labels of a teacher counts as labelled no more."""
        kept = [each for each in self._of_batch.get(batch, ()) if each.teacher != teacher]
        if kept:
            self._of_batch[batch] = kept
        else:
            self._of_batch.pop(batch, None)

    def labels_of(self, batch: int, teacher: str) -> bool:
        """Whether anything of a batch has labels of a teacher."""
        return any(each.teacher == teacher for each in self._of_batch.get(batch, ()))

    def clear(self) -> None:
        """All batches are forgotten."""
        self._of_batch.clear()

    def validate(self, open_batches: Collection[int], unlabelled: Pieces) -> None:
        """Check the invariant, for tests.

        Args:
            open_batches: numbers of the batches that the loop has not had.
            unlabelled: what of a batch lacks labels of a teacher, as ``start, stop``, in any order.
        """
        for batch, all_of_it in self._of_batch.items():
            assert batch in open_batches, f"batch {batch} is open no more"
            for teacher in {each.teacher for each in all_of_it}:
                pieces = [(each.start, each.stop) for each in all_of_it if each.teacher == teacher]
                assert all(each.batch == batch for each in all_of_it)
                pieces = sorted([*pieces, *unlabelled(teacher, batch)])
                for (_, stop), (start, _) in itertools.pairwise(pieces):
                    assert stop <= start, f"samples {start} to {stop} of batch {batch} stand there twice"
