"""What is wanted of a teacher of one batch: which samples, and what each of them costs. Pure."""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = ["Wanted"]


class Wanted(NamedTuple):
    """The samples of a batch that one teacher is to label.

    Attributes:
        samples: of the batch that this teacher is shown, from 0 on.
        runs: ``start`` and ``stop`` of those that are wanted, in order, none empty. Labels of the others are
            there already.
        ends: ``ends[k]`` is what the first k samples cost, in the units in which workers pull. None: a sample
            costs 1. With lengths (packed sequences), a sample costs its length.
        most: what a cut may cost, because a message holds no more; None: any cut will do.
    """

    samples: int
    runs: tuple[tuple[int, int], ...]
    ends: Sequence[int] | None = None
    most: int | None = None

    @classmethod
    def whole(cls, samples: int, lengths: Sequence[int] | None = None) -> Wanted:
        """All samples of a batch; with ``lengths``, one positive number for each."""
        if lengths is None:
            return _whole(samples)
        return cls(samples, _all_of(samples), list(itertools.accumulate(lengths, initial=0)))

    def cut_at(self, most: int) -> Wanted:
        """The same, where no cut may cost more."""
        return Wanted(self.samples, self.runs, self.ends, most)

    def only(self, samples: Iterable[int]) -> Wanted:
        """The same batch, of which these samples are wanted, in whatever order they come."""
        runs: list[tuple[int, int]] = []
        for sample in sorted(samples):
            if runs and runs[-1][1] == sample:
                runs[-1] = (runs[-1][0], sample + 1)
            else:
                runs.append((sample, sample + 1))
        return Wanted(self.samples, tuple(runs), self.ends, self.most)

    @property
    def missing(self) -> int:
        """How many samples are wanted."""
        missing = 0
        for start, stop in self.runs:
            missing += stop - start
        return missing

    @property
    def size(self) -> int:
        """What all samples cost, wanted or not: the memory of their labels grows with it."""
        return self.samples if self.ends is None else self.ends[-1]

    def cost(self, start: int, stop: int) -> int:
        """What some samples cost."""
        return stop - start if self.ends is None else self.ends[stop] - self.ends[start]

    def fitting(self, start: int, stop: int, cost: int) -> int:
        """Where a cut ends that begins at ``start`` and costs no more, ``stop`` at most."""
        if self.most is not None:
            cost = min(cost, self.most)
        if self.ends is None:
            return min(stop, start + cost)
        return min(stop, bisect.bisect_right(self.ends, self.ends[start] + cost) - 1)


def _all_of(samples: int) -> tuple[tuple[int, int], ...]:
    return ((0, samples),) if samples else ()


@functools.lru_cache(maxsize=64)
def _whole(samples: int) -> Wanted:
    """Made once for batches of one size, as nearly all are."""
    return Wanted(samples, _all_of(samples))
