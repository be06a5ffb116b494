"""What a worker could give if it never waited for tasks: samples per second, from its passes. Pure."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

__all__ = ["Capacity"]

WARM_UP = 2
"""First passes that do not count: kernels are chosen, memory is mapped, a model is compiled."""
FULL = 0.75
"""A pass with so much of the most that it could have counts as full."""
MEMORY_S = 10.0
"""Seconds of computing after which a pass counts e times less."""
WINDOW_S = 10.0
ALWAYS_BUSY = 0.05
"""A smaller share of the time without tasks is none."""


class _Look(NamedTuple):
    at: float
    samples: int
    idle_s: float


class _Pace:
    """Samples over seconds, of which the latest count most."""

    def __init__(self) -> None:
        self._samples = self._seconds = 0.0

    def add(self, samples: int, seconds: float) -> None:
        kept = math.exp(-seconds / MEMORY_S)
        self._samples = self._samples * kept + samples
        self._seconds = self._seconds * kept + seconds

    @property
    def value(self) -> float | None:
        return self._samples / self._seconds if self._seconds else None


class Capacity:
    """The capacity of one worker.

    Where little is asked for, passes are small, and a small pass takes longer for each sample. So it is full
    passes that count, if there ever were any: what a worker could do, and not what it was asked for.

    A pass is not all that a task takes: it travels, is packed, and waits for others of its pass. What these
    cost shows when the worker is never without tasks; the share of the pace of its passes that was left then
    counts from then on.

    The compute thread calls ``passed``, the I/O thread ``seen``.
    """

    def __init__(self) -> None:
        self._passes = 0
        self._full = _Pace()
        self._any = _Pace()
        self._looks: deque[_Look] = deque()
        self._kept = 1.0  # Invariant: above 0, and no more than 1

    def passed(self, samples: int, seconds: float, fullness: float) -> None:
        """A pass over so many samples took that long.

        Args:
            fullness: what it had of the most that it could have.
        """
        self._passes += 1
        if self._passes <= WARM_UP or seconds <= 0:
            return
        self._any.add(samples, seconds)
        if fullness >= FULL:
            self._full.add(samples, seconds)

    def seen(self, now: float, samples: int, idle_s: float) -> float | None:
        """Samples per second; None until it is known.

        Args:
            now: monotonic seconds.
            samples: that were labelled so far.
            idle_s: seconds so far in which this worker had nothing to do, and nobody had anything for it.
        """
        pace = self._full.value or self._any.value
        looks = self._looks
        looks.append(_Look(now, samples, idle_s))
        while len(looks) > 2 and now - looks[1].at >= WINDOW_S:
            looks.popleft()
        first = looks[0]
        elapsed_s = now - first.at
        if pace is None:
            return None
        if (
            elapsed_s >= WINDOW_S
            and idle_s - first.idle_s < ALWAYS_BUSY * elapsed_s
            and samples > first.samples
        ):
            self._kept = min(1.0, (samples - first.samples) / elapsed_s / pace)
        return pace * self._kept
