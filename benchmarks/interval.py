"""Between which bounds a median lies, whatever the runs are distributed like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["CONFIDENCE", "Interval", "median_interval"]

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """The median of what was measured lies from ``low`` to ``high`` with a probability of ``confidence``."""

    low: float
    high: float
    confidence: float


def median_interval(values: Sequence[float]) -> Interval:
    """The interval of the median between two of the values, by the sign test.

    Each independent run is above the true median or below it with the same chance, so the binomial
    distribution says how likely it is that the k-th smallest value and the k-th largest are on both sides of
    it. k is the greatest with a confidence of ``CONFIDENCE`` or more; of fewer than six values it is 1, and
    the confidence is less.

    Args:
        values: at least one.
    """
    ordered, count = sorted(values), len(values)
    # How likely at most so many of all values are on one side, by that number.
    tails = [sum(math.comb(count, below) for below in range(k)) / 2**count for k in range(count // 2 + 1)]
    k = max((k for k in range(1, len(tails)) if 1 - 2 * tails[k] >= CONFIDENCE), default=1)
    confidence = max(0.0, 1 - 2 / 2**count) if k == 1 else 1 - 2 * tails[k]
    return Interval(ordered[k - 1], ordered[count - k], confidence)
