"""How much members give and want, from what their heartbeats count. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from edldist.wire.messages import Scalar

__all__ = ["Rate", "RecentRate", "capacity_counters", "demand_counters", "differs"]

SMOOTHING = 0.25
"""Weight of a new measurement: one odd one, as of an evaluation between two batches, moves little."""
RECENT_S = 5.0
"""How far back "the last seconds" reach."""
CLEAR_CHANGE = 1.5
"""A rate has changed when it is so many times another, or so many times smaller."""

Counters = tuple[float, float] | None
"""Samples, and the seconds that they took; both only grow."""


class Rate:
    """Samples per second, smoothed, out of two counters that only grow.

    Attributes:
        value: NaN until something was measured.
    """

    def __init__(self) -> None:
        self.value = math.nan
        self._last: Counters = None

    def see(self, counters: Counters) -> None:
        """Take in the counters as they are now; None if they are not known.

        Time in which nothing was counted is kept until something is: a step may be longer than the time
        between two looks.
        """
        if counters is None or counters[0] == 0:
            return  # what came before the first sample was no work
        last, self._last = self._last, counters
        if last is None:
            return
        samples, seconds = counters[0] - last[0], counters[1] - last[1]
        if samples < 0 or seconds < 0:
            return  # another process under the same name counts from 0
        if samples == 0 or seconds == 0:
            self._last = last
            return
        measured = samples / seconds
        self.value = measured if math.isnan(self.value) else self.value + SMOOTHING * (measured - self.value)


class RecentRate:
    """Samples per second over the last seconds, as people want to see it: 0 soon after nothing is done."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def see(self, samples: Scalar, now: float) -> None:
        """Take in the count of samples as it is now; anything else counts for nothing."""
        if not isinstance(samples, int | float) or isinstance(samples, bool) or not 0 <= samples < math.inf:
            return
        if self._seen and samples < self._seen[-1][1]:
            self._seen.clear()  # another process under the same name counts from 0
        self._seen.append((now, float(samples)))
        while len(self._seen) > 2 and now - self._seen[1][0] >= RECENT_S:
            self._seen.popleft()

    @property
    def value(self) -> float | None:
        """None until it was looked at twice."""
        if len(self._seen) < 2:
            return None
        (before, first), (now, last) = self._seen[0], self._seen[-1]
        return (last - first) / (now - before) if now > before else None


def capacity_counters(stats: Mapping[str, Scalar]) -> Counters:
    """What a teacher worker could give: samples, over the seconds in which its device was busy."""
    return _pair(stats.get("samples"), stats.get("busy_s"))


def demand_counters(stats: Mapping[str, Scalar], now: float) -> Counters:
    """What a student could take: samples, over the seconds in which its loop did not wait for labels.

    Not the share of time that it waits: that falls as soon as more workers serve it, and they would be
    taken away again. What it takes while it need not wait stays what it is, however many serve it.
    """
    return _pair(stats.get("samples"), stats.get("starved_s"), now)


def differs(rate: float, known: float) -> bool:
    """Whether a rate is clearly another than the one that is known; one that was not known is."""
    if math.isnan(rate):
        return False
    return math.isnan(known) or not known / CLEAR_CHANGE <= rate <= known * CLEAR_CHANGE


def _pair(samples: Scalar, seconds: Scalar, from_s: float | None = None) -> Counters:
    for figure in (samples, seconds):
        if not isinstance(figure, int | float) or isinstance(figure, bool) or not 0 <= figure < math.inf:
            return None
    assert isinstance(samples, int | float) and isinstance(seconds, int | float)
    return float(samples), float(seconds) if from_s is None else from_s - seconds
