"""How long the stages of a label's way take: counted in fixed buckets, so that to measure one costs next to
nothing, and what a process tells of it is small whatever it has done.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from edldist.wire.messages import StageTimes

__all__ = ["BOUNDS_S", "StageClock", "times_of"]

BOUNDS_S = tuple(0.0005 * 2**power for power in range(18))
"""Upper bounds of the buckets, half a millisecond to 65 seconds; what takes longer is in one more."""


class StageClock:
    """The durations of one stage. One thread adds; any other may read."""

    __slots__ = ("_counts", "_sum_s", "_waited_s", "_waits")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum_s = 0.0
        self._waits: list[int] = []
        self._waited_s = 0.0

    def took(self, seconds: float) -> None:
        """The stage took so long, once more."""
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self._sum_s += seconds

    def waited(self, seconds: float) -> None:
        """What the stage took was ready for it so long before it began."""
        self._waits = self._waits or [0] * (len(BOUNDS_S) + 1)
        self._waits[bisect_left(BOUNDS_S, seconds)] += 1
        self._waited_s += seconds

    def told(self, stage: str) -> StageTimes:
        """What there is to tell of it so far."""
        return StageTimes(
            stage=stage,
            sum_s=max(0.0, self._sum_s),
            counts=self._counts.copy(),
            waited_s=max(0.0, self._waited_s),
            waits=self._waits.copy(),
        )


def times_of(stages: Mapping[str, StageClock]) -> list[StageTimes]:
    """What a process tells of its stages, by their names."""
    return [clock.told(stage) for stage, clock in stages.items()]
