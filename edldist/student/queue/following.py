"""What becomes of samples that follow equal ones, in a queue's batches and tracks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from edldist.student.queue.batches import Batches
from edldist.student.queue.coalescing import Coalescing, Follower, Place
from edldist.student.queue.outcomes import Grant
from edldist.student.queue.provenance import Labelled, Provenance
from edldist.student.queue.track import Track
from edldist.student.queue.wanted import Wanted

__all__ = ["Following"]


class Following:
    """Keeps a queue in step with who leads and who follows (see ``Coalescing``).

    Args:
        batches, provenance: those of the queue.
        tracks: by teacher.
    """

    def __init__(self, batches: Batches, tracks: Mapping[str, Track], provenance: Provenance) -> None:
        self._batches = batches
        self._tracks = tracks
        self._provenance = provenance
        self.samples = Coalescing(batches.waits)

    def __bool__(self) -> bool:
        """Whether any sample with a key is under way."""
        return bool(self.samples)

    def of(self, grant: Grant) -> list[Follower]:
        """Samples that get the labels of an open lease when that is completed."""
        if not self.samples:
            return []
        which = grant.teacher, grant.batch
        return [follower for piece in grant.pieces for follower in self.samples.followers(*which, *piece)]

    def of_found(self, teacher: str, batch: int, had: Wanted) -> list[Follower]:
        """Samples that get labels that were found for others."""
        return [follower for run in had.runs for follower in self.samples.followers(teacher, batch, *run)]

    def labelled(self, worker: str | None, teacher: str, batch: int, start: int, stop: int) -> bool:
        """Those that follow some samples have the labels of these; whether a batch has all labels now.

        Args:
            worker: who made them; None: they were found.
        """
        ready = False
        for number, its in self.samples.labelled(teacher, batch, start, stop):
            for run in its.runs if worker is not None else ():
                self._provenance.add(Labelled(worker or "", teacher, number, *run, its))
            ready |= self._batches.settle(number, its.missing)
        return ready

    def uncut(self, teacher: str, batch: int) -> list[tuple[int, int]]:
        """What of a batch nobody was given yet, ``start`` and ``stop`` of each piece."""
        return self._tracks[teacher].uncut_of(batch)

    def found(self, teacher: str, batch: int, had: Wanted, lacking: Wanted) -> bool:
        """Labels of what nobody was given yet were found; whether a batch has all of its labels now.

        Args:
            had: what has labels now, which are in place, as are those of what follows it.
            lacking: the rest of what nobody was given yet.
        """
        self._tracks[teacher].keep_only(batch, lacking)
        ready = False
        for start, stop in had.runs:
            ready |= self.labelled(None, teacher, batch, start, stop)
        return self._batches.settle(batch, had.missing) or ready

    def excuse(self, teacher: str, place: Place) -> None:
        """A follower cannot use the labels of the one that it follows: it waits for a worker."""
        self._want(teacher, [self.samples.excuse(teacher, place)])

    def release(self, teacher: str, batch: int, samples: Sequence[int]) -> None:
        """Samples get no labels: what follows them waits for a worker."""
        if self.samples:
            self._want(teacher, self.samples.release(teacher, batch, samples))

    def drop(self, teacher: str, batch: int) -> None:
        """Nobody labels anything of a batch any more: what follows it waits for a worker."""
        self._want(teacher, self.samples.drop(teacher, batch))

    def _want(self, teacher: str, wanted: Iterable[tuple[int, Wanted]]) -> None:
        for batch, one in wanted:
            self._tracks[teacher].offer_again(batch, one)
