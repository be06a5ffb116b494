"""What happens when: simulated time, and the order of everything that happens at once, drawn from a seed."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable

__all__ = ["ProcessClock", "Schedule"]


class Schedule:
    """A queue of things to do. Nothing happens but by ``step``.

    Args:
        chance: breaks ties, so that what happens at once happens in any order.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        # Invariant: nothing in it lies before ``now``.
        self._due: list[tuple[float, float, int, Callable[[], None]]] = []
        self._count = 0
        self.now = 0.0
        self.steps = 0

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._due, (max(when, self.now), self._chance.random(), self._count, what))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self.at(self.now + seconds, what)

    @property
    def next_at(self) -> float:
        """When something happens next; infinite if never."""
        return self._due[0][0] if self._due else math.inf

    def step(self) -> bool:
        """Do the next thing; False if there is nothing to do, ever."""
        if not self._due:
            return False
        self.now, _, _, what = heapq.heappop(self._due)
        self.steps += 1
        what()
        return True


class ProcessClock:
    """The clock of one process: it began at a time of its own, and its wall clock may be off."""

    def __init__(self, schedule: Schedule, since_boot_s: float, wall_off_s: float) -> None:
        self._schedule = schedule
        self._since_boot_s = since_boot_s
        self._wall_s = 1_700_000_000.0 + wall_off_s

    def monotonic(self) -> float:
        return self._schedule.now + self._since_boot_s

    def wall(self) -> float:
        return self._schedule.now + self._wall_s
