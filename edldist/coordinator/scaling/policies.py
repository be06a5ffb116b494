"""How many workers a teacher group should have, by what its members say. Pure.

Two policies, each with an object per group:

* ``demand`` divides what the students would take, if they never waited, by what a worker gives. Neither
  figure depends on how many workers there are now, so a change of load is followed in one step, however long
  a worker takes to start.
* ``watermark`` is the rule of EDL-Dist (Liu et al., 2022): a student asks for a teacher when its buffer runs
  below the lower threshold, and gives one back when it is above the upper one. It needs no measurement, goes
  one step at a time, and finds no rest: with too few workers buffers run empty, with enough they are full.

A policy gives advice; ``scaling`` decides.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable
from statistics import fmean
from typing import NamedTuple, Protocol

from edldist.coordinator.scaling.load import GroupLoad

__all__ = ["POLICIES", "Advice", "DemandPolicy", "Policy", "WatermarkPolicy"]

ACCEPTED_SHORTAGE = 0.05
"""Students that would take so much more than their workers give are no reason for more."""
URGENT_SHORTAGE = 0.2
"""A larger shortage is one at once; a smaller one when it has been seen ``SURE`` times in a row, because
measurements differ by as much from one to the next."""
SURE = 3
SPARE = 0.02
"""So much more than they would take must be left when workers are given up,"""
LEAST_SAVING = 0.05
"""and so many of them must be saved. Between that and a shortage, all stays as it is."""
STARVED = 0.1
"""A larger share of waiting than this is one that more workers should end."""
BUSY = 0.8
"""Workers that give less of their capacity while students wait are not what these wait for."""
COMPLETE_S = 15.0
"""The youngest worker is here for so long: members report what they saw in some ten seconds."""


class Advice(NamedTuple):
    """How many workers there should be, and why, in words."""

    workers: int
    why: str


class Policy(Protocol):
    """One group's policy."""

    def advise(self, load: GroupLoad, standing: int, now: float) -> Advice:
        """How many workers there should be.

        Args:
            load: what the group's members say.
            standing: the number that was wanted last.
            now: monotonic seconds.
        """
        ...


class DemandPolicy:
    """Demand over the capacity of one.

    What is not known changes nothing: while nobody can tell what the students would take, or what a worker
    gives, the standing number is right, or one worker, to find out.

    Two memories. The capacity of a worker outlives the workers, so that a group can grow from nothing at
    once. And where workers were busy all the time, and students waited all the same, what the workers gave is
    what they can give, whatever they say: without that memory, a number that has proved too few would be
    returned to as soon as it seems to be enough, and left again, for ever.

    Workers of a group differ, as on devices of several types. Their capacities are added up, never multiplied
    by a mean: so many are enough as give what is due, those that stay of those that are here, and beyond
    these typical ones.

    Args:
        slowest_leave: whether the slowest leave first (``GroupLoad.leaving``). Where an engine chooses in an
            order of its own, those that stay may be the slowest, and are to be enough all the same.
    """

    def __init__(self, slowest_leave: bool = True) -> None:
        self._slowest_leave = slowest_leave
        self._capacity: float | None = None
        # Of its capacity, what a worker gives when it is busy all the time. Invariant: from BUSY to 1.
        self._share = 1.0
        self._due: deque[float] = deque(maxlen=SURE)  # samples per second, the latest last

    def advise(self, load: GroupLoad, standing: int, now: float) -> Advice:
        capacities = sorted(load.capacities(self._capacity), reverse=self._slowest_leave)
        if any(worker.capacity is not None for worker in load.workers):
            self._capacity = fmean(capacities)
        if not load.asked:
            return Advice(0, "nobody asks for labels" if load.students else "no student is here")
        demand = load.demand
        if demand is None:
            return Advice(max(standing, 1), "what the students could take is not known yet")
        if self._capacity is None:
            return Advice(max(standing, 1), "what a worker gives is not known yet")
        self._learn(load, standing, sum(capacities), now)
        due = demand / self._share
        self._due.append(due)
        gives = self._capacity * self._share
        why = f"students could take {demand:.4g} samples/s, a worker gives {gives:.4g}"
        return Advice(max(self._enough(due, standing, capacities, self._capacity), 1), why)

    def _enough(self, due: float, standing: int, capacities: list[float], typical: float) -> int:
        """A number of workers that gives what is due; the standing one, unless it is clearly another."""

        def enough(samples_per_s: float) -> int:
            return _enough(samples_per_s, capacities, typical)

        if enough(due / (1 + URGENT_SHORTAGE)) > standing:
            return enough(due)
        sure = min(self._due) if len(self._due) == SURE else 0.0
        if enough(sure / (1 + ACCEPTED_SHORTAGE)) > standing:
            return enough(sure)
        fewer = enough(due / (1 - SPARE))
        return fewer if fewer <= (1 - LEAST_SAVING) * standing else standing

    def _learn(self, load: GroupLoad, standing: int, capacity: float, now: float) -> None:
        """Compare what workers give with what they say, when all of them are here and students wait."""
        here = load.workers
        if not here or len(here) < standing or (load.starved or 0.0) < STARVED:
            return
        youngest = max(worker.joined_at for worker in here)
        share = sum(worker.given for worker in here) / capacity
        if share >= BUSY and now - youngest >= COMPLETE_S:
            self._share = min(share, 1.0)


def _enough(demand: float, capacities: list[float], typical: float) -> int:
    """The least number of workers that gives ``demand``.

    Args:
        capacities: of those that are here, the one that leaves last first.
        typical: of each that is to come.
    """
    given = 0.0
    for number, total in enumerate(itertools.accumulate(capacities), start=1):
        if total >= demand:
            return number
        given = total
    return len(capacities) + math.ceil((demand - given) / typical)


class WatermarkPolicy:
    """EDL-Dist's rule: each student whose buffer is below the lower threshold asks for one worker more.

    It asks again when all that were asked for are here. One worker is given back when all buffers are at
    their upper threshold.
    """

    def advise(self, load: GroupLoad, standing: int, now: float) -> Advice:
        if not load.asked:
            return Advice(0, "nobody asks for labels" if load.students else "no student is here")
        hungry = sum(
            student.lacking > 0 and student.buffered < max(1, student.low) for student in load.students
        )
        if hungry and len(load.workers) >= standing:
            return Advice(standing + hungry, f"{hungry} buffers are below their lower threshold")
        if not hungry and all(student.buffered >= student.high for student in load.students):
            return Advice(max(1, standing - 1), "all buffers are at their upper threshold")
        return Advice(max(standing, 1), "no buffer is below its lower threshold, nor all at their upper one")


POLICIES: dict[str, Callable[[bool], Policy]] = {
    "demand": DemandPolicy,
    "watermark": lambda slowest_leave: WatermarkPolicy(),  # it finds out
}
"""By name; each is told whether the slowest workers leave first."""
