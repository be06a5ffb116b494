"""What the open batches of a label queue lack, teacher by teacher. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from edldist.student.queue.batches import Batches
from edldist.student.queue.blame import Blame
from edldist.student.queue.following import Following
from edldist.student.queue.track import Track
from edldist.student.queue.workers import Workers

__all__ = ["Lacking"]


class Lacking:
    """Counts samples without labels, wherever they wait.

    Args:
        batches: the open ones.
        tracks: what nobody has leased, by teacher.
        workers: what is leased.
        blame: what is withheld.
        following: what waits for the labels of equal samples.
    """

    def __init__(
        self,
        batches: Batches,
        tracks: Mapping[str, Track],
        workers: Workers,
        blame: Blame,
        following: Following,
    ) -> None:
        self._batches = batches
        self._tracks = tracks
        self._workers = workers
        self._blame = blame
        self._following = following

    def of(self, teacher: str) -> Counter[int]:
        """How many samples of each open batch wait for labels of a teacher; no batch that has all of them."""
        samples = self._tracks[teacher].uncut()
        leased = {task for lease in self._workers.leases() for task in lease.tasks}
        for task in leased | set(self._tracks[teacher]) | set(self._blame):
            if task.teacher == teacher:
                samples[task.batch] += task.samples
        return samples

    def only(self, teachers: Collection[str]) -> frozenset[str]:
        """Of teachers without a worker, those whose labels are what the head lacks, if it lacks no others."""
        if (head := self._batches.head) is None:
            return frozenset()
        waits = {
            name: self._tracks[name].waiting(head)
            + self._blame.withheld(head, name)
            + self._following.samples.waiting(name, head)
            for name in teachers
        }
        if sum(waits.values()) != self._batches.unlabelled(head):
            return frozenset()
        return frozenset(name for name, samples in waits.items() if samples)
