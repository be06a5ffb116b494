"""How far above its recent values a figure may be."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable

__all__ = ["Recent"]

_SIGMA = 1.4826  # of a normal distribution, over its median absolute deviation
_LEAST_SPREAD = 0.05
"""The least spread that counts, as a share of the median: figures that hardly vary may begin to."""
_MEAN_SIGMA = 1.2533  # of a normal distribution, over its mean absolute deviation


class Recent:
    """The last values of a figure, and the bound on the next one. Pure.

    The bound is ``median + tolerance * spread``, with ``spread`` 1.4826 times the median of the distances
    from the median (for a normal distribution that is its standard deviation), or 5% of the median where
    that is more. A median does not move for the few values that are far off. Where both are 0, most values
    being 0, the spread is 1.2533 times the mean of the distances (Iglewicz and Hoaglin, "How to Detect and
    Handle Outliers", 1993), and values that are all 0 have no bound. The bound is from above only: to fall
    is no spike.

    Args:
        window: how many values are kept.
        least: how many there have to be for a bound.
        tolerance: in spreads.
        values: to begin with, oldest first.
    """

    def __init__(self, window: int, least: int, tolerance: float, values: Iterable[float] = ()) -> None:
        self._values: deque[float] = deque(values, maxlen=window)
        self._least = least
        self._tolerance = tolerance

    @property
    def values(self) -> list[float]:
        """Oldest first."""
        return list(self._values)

    @property
    def bound(self) -> float:
        """What the next value has to be no higher than: infinite until enough were seen, and not only 0."""
        if len(self._values) < self._least:
            return math.inf
        middle = statistics.median(self._values)
        distances = [abs(value - middle) for value in self._values]
        spread = max(_SIGMA * statistics.median(distances), _LEAST_SPREAD * abs(middle))
        spread = spread or _MEAN_SIGMA * statistics.fmean(distances)
        return middle + self._tolerance * spread if spread else math.inf

    def is_spike(self, value: float) -> bool:
        """Whether a value is beyond the bound, or no finite number."""
        return not math.isfinite(value) or value > self.bound

    def add(self, value: float) -> None:
        """The value was fine."""
        self._values.append(value)
