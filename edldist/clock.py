"""Time as a dependency: pure cores take a reading, servers own a clock, tests own a fake one."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "FakeClock", "SystemClock"]


class Clock(Protocol):
    """Where a server reads the time."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back. All deadlines use it."""
        ...

    def wall(self) -> float:
        """Unix seconds; may jump. Only for records that people read."""
        ...


class SystemClock:
    """The clock of this machine."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


class FakeClock:
    """A clock that moves only when told to."""

    def __init__(self, start: float = 0.0, wall: float = 1_700_000_000.0) -> None:
        self._now = start
        self._wall = wall

    def monotonic(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> float:
        """Move both readings forward and return the new monotonic one."""
        if seconds < 0:
            raise ValueError(f"a clock cannot go back by {-seconds} s")
        self._now += seconds
        self._wall += seconds
        return self._now
