"""How much members give and take, as people and assignments see it. Pure."""

from __future__ import annotations

import math
from collections import deque

from edldist.wire.messages import Scalar

__all__ = ["RecentRate", "differs"]

RECENT_S = 5.0
"""How far back "the last seconds" reach."""
CLEAR_CHANGE = 1.5
"""A rate has changed when it is so many times another, or so many times smaller."""


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


def differs(rate: float, known: float) -> bool:
    """Whether a rate is clearly another than the one that is known; one that was not known is."""
    if math.isnan(rate):
        return False
    return math.isnan(known) or not known / CLEAR_CHANGE <= rate <= known * CLEAR_CHANGE
