"""How far one teacher group's overload goes: steps up and down with hysteresis. Pure.

::

    none --> less is read ahead --> the store --> a job is degraded, one after the other --> jobs wait
         <--                    <--           <--                                        <--

A rung up when the students would take clearly more than the workers give, and have for ``UP_S`` since the
last change. A rung down when what they would take without this rung's relief is clearly less, for ``DOWN_S``.
While that is in between, or nobody can tell, all stays as it is. A rung that could relieve nobody (no job may
be degraded, all are of one priority) is not there.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

__all__ = ["Overload", "Pressure", "Step"]

OVER, UNDER = 1.1, 0.9
"""What students would take, over what the workers give: above the first there are too few workers, below the
second there are enough."""
UP_S = 3.0
DOWN_S = 10.0


class Step(IntEnum):
    """What is done about an overload; each step comes with all before it."""

    NONE = 0
    CREDITS = 1
    STORE = 2
    DEGRADE = 3
    REFUSE = 4


class Pressure(NamedTuple):
    """What is asked of a group, over what it gives.

    Attributes:
        now: as jobs are degraded now.
        below: as they would be one rung lower; the same as ``now`` where that degrades nobody less.
    """

    now: float
    below: float


class Overload:
    """One teacher group.

    Attributes:
        level: the rung; 0 is the ground.
    """

    def __init__(self) -> None:
        self.level = 0
        # Since when it is so, or since the last change of the level; None: it is not so.
        self._over_since: float | None = None
        self._under_since: float | None = None
        self._rungs = (Step.NONE,)

    @property
    def step(self) -> Step:
        """What is done at the present rung."""
        return self._rungs[self.level]

    @property
    def degraded(self) -> int:
        """How many of the degradations that jobs allow apply."""
        return self._rungs[: self.level + 1].count(Step.DEGRADE)

    def look(
        self, pressure: Pressure | None, degradable: int, refusable: bool, now: float, up_s: float = UP_S
    ) -> bool:
        """Let time pass; whether the level is another one now.

        Args:
            pressure: None where nobody can tell.
            degradable: how many degradations jobs allow, those that apply included.
            refusable: whether there are jobs of several priorities.
            now: monotonic seconds.
            up_s: since the last change, before another rung up.
        """
        before = self.level, self.step
        refuse = (Step.REFUSE,) if refusable else ()
        self._rungs = (Step.NONE, Step.CREDITS, Step.STORE, *[Step.DEGRADE] * degradable, *refuse)
        self.level = min(self.level, len(self._rungs) - 1)
        if pressure is None:
            self._over_since = self._under_since = None
            return before != (self.level, self.step)
        self._over_since = _since(self._over_since, pressure.now > OVER, now)
        self._under_since = _since(self._under_since, pressure.below < UNDER, now)
        over = self._over_since is not None and now - self._over_since >= up_s
        under = self._under_since is not None and now - self._under_since >= DOWN_S
        if over and self.level < len(self._rungs) - 1:
            self._move(1, now)
        elif under and self.level:
            self._move(-1, now)
        return before != (self.level, self.step)

    def _move(self, rungs: int, now: float) -> None:
        self.level += rungs
        self._over_since = None if self._over_since is None else now
        self._under_since = None if self._under_since is None else now


def _since(since: float | None, so: bool, now: float) -> float | None:
    if not so:
        return None
    return now if since is None else since
