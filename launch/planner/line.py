"""How long a stage takes by the rows of a pass: a line with a floor, fitted so that outliers do not count.

A pass costs something whatever is in it, and something for each row (a sample, or a token of a sequence). A
device that is not full takes as long for a few rows as for one, so small passes may lie on a floor::

    seconds |              /
            |            /
            |__________/
            +-------------------- rows of the pass
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Line", "fit_line"]

Floats = NDArray[np.float64]

FLOOR_GAIN = 0.8
"""A floor is taken where it leaves at most this share of the error without one."""
LEAST_ERROR = 0.01
"""A smaller relative error than this is noise: no floor is fitted to it."""
LEAST_S = 1e-9


@dataclass(frozen=True)
class Line:
    """``max(floor_s, base_s + row_s * rows)`` seconds.

    Attributes:
        floor_s: at least so many, 0 for none.
        base_s, row_s: of a pass, and of each row; ``base_s`` may be negative above a floor.
        error: by how much half of the passes differ from it at least, as a share of it.
    """

    floor_s: float
    base_s: float
    row_s: float
    error: float = 0.0

    def at(self, rows: float) -> float:
        """Seconds for so many rows."""
        return max(self.floor_s, self.base_s + self.row_s * rows, 0.0)


def fit_line(rows: Sequence[float], seconds: Sequence[float]) -> Line:
    """The line through the medians of the passes of each size, after Theil and Sen.

    Args:
        rows: of each pass, above 0.
        seconds: that each took, as many; at least one.
    """
    sizes_N, seconds_N = np.asarray(rows, float), np.asarray(seconds, float)
    sizes_K, medians_K, weights_K = _medians(sizes_N, seconds_N)
    best = _line(sizes_K, medians_K, weights_K, 0)
    least = _error(best, sizes_K, medians_K, weights_K)
    for first in range(1, len(sizes_K) - 1):
        if least <= LEAST_ERROR:
            break
        floored = _line(sizes_K, medians_K, weights_K, first)
        error = _error(floored, sizes_K, medians_K, weights_K)
        if error < FLOOR_GAIN * least:
            best, least = floored, error
    at_N = _at(best, sizes_N)
    error = float(np.median(np.abs(seconds_N - at_N) / np.maximum(at_N, LEAST_S)))
    return Line(best.floor_s, best.base_s, best.row_s, error)


def _medians(sizes_N: Floats, seconds_N: Floats) -> tuple[Floats, Floats, Floats]:
    """Sizes in order, the median of each, and its weight: a size that was seen often is surer."""
    sizes_K, places_N, counts_K = np.unique(sizes_N, return_inverse=True, return_counts=True)
    medians_K = np.array([np.median(seconds_N[places_N == place]) for place in range(len(sizes_K))])
    return sizes_K, medians_K, np.sqrt(counts_K.astype(float))


def _line(sizes_K: Floats, medians_K: Floats, weights_K: Floats, first: int) -> Line:
    """A line through the sizes from ``first`` on; those before it lie on a floor."""
    floor_s = _weighted_median(zip(medians_K[:first], weights_K[:first], strict=True)) if first else 0.0
    sizes, medians, weights = sizes_K[first:], medians_K[first:], weights_K[first:]
    slopes = [
        (
            (medians[b] - medians[a]) / (sizes[b] - sizes[a]),
            weights[a] * weights[b] * (sizes[b] - sizes[a]),
        )
        for a in range(len(sizes))
        for b in range(a + 1, len(sizes))
    ]
    row_s = max(0.0, _weighted_median(slopes)) if slopes else 0.0
    base_s = _weighted_median(zip(medians - row_s * sizes, weights, strict=True))
    if not first and base_s < 0:  # no pass takes less than nothing: a line through the origin
        base_s = 0.0
        row_s = max(0.0, _weighted_median(zip(medians / sizes, weights * sizes, strict=True)))
    return Line(floor_s, base_s, row_s)


def _at(line: Line, sizes: Floats) -> Floats:
    return np.maximum(np.maximum(line.floor_s, line.base_s + line.row_s * sizes), 0.0)


def _error(line: Line, sizes_K: Floats, medians_K: Floats, weights_K: Floats) -> float:
    apart_K = np.abs(_at(line, sizes_K) - medians_K) / np.maximum(medians_K, LEAST_S)
    return float(np.average(apart_K, weights=weights_K))


def _weighted_median(weighted: Iterable[tuple[float, float]]) -> float:
    """The value at which half of the weight is reached."""
    ordered = sorted((float(value), float(weight)) for value, weight in weighted)
    half = sum(weight for _, weight in ordered) / 2
    reached = 0.0
    for value, weight in ordered:
        reached += weight
        if reached >= half:
            return value
    return ordered[-1][0]
