"""Which job comes next at a worker that several share: deficit round-robin by weight. Pure.

A job's *deficit* is what the worker owes it, in the units of pulls (samples, or tokens). What one job gets is
owed to all that have something to give, in proportion to their weights, and is taken off the one that got it.
The job to which most is owed for its weight comes next. So jobs take turns one pull at a time, as in a
round of Shreedhar and Varghese's deficit round-robin (1996) whose quanta are mixed: with weights 2, 1, 1 it
is a, b, a, c and not a, a, b, c, and a student that is slow to answer a pull misses no round.

A job that has nothing to give is owed nothing: it does not save up for later. Jobs of a higher priority come
before all others; what these get is no concern of theirs.

While no student of a worker says a weight or a priority, all of them are one job here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edldist.wire.messages import JobShare

__all__ = ["SharedJob", "Shares"]

MOST_TURNS = 4
"""Nobody is owed more turns than this, or owes more: what a job was kept from for long is not made up for."""


@dataclass(slots=True, eq=False)
class SharedJob:
    """A job among those that share a worker.

    Attributes:
        deficit: what the worker owes it; negative where it had more than its part.
    """

    weight: int = 1
    priority: int = 0
    deficit: float = 0.0

    @property
    def place(self) -> tuple[int, float]:
        """What it is sorted by: the least comes next."""
        return -self.priority, -self.deficit / self.weight


class Shares:
    """The jobs of the students of one worker. Owned by its ``Demand``."""

    def __init__(self) -> None:
        self._said: dict[str, JobShare] = {}
        # Invariant: every student that said something has a job; all the same one unless some job is named.
        self._jobs: dict[str, SharedJob] = {}
        self.several = False
        """Whether jobs are told apart."""

    def __getitem__(self, student: str) -> SharedJob:
        return self._jobs[student]

    def joined(self, student: str, share: JobShare) -> None:
        """A student said of which job it is, and what that may have."""
        self._said[student] = share
        self._part()

    def left(self, student: str) -> None:
        """A student is gone; its job too, if it was the last of it."""
        if self._said.pop(student, None) is not None:
            self._part()

    def charge(self, student: str, cost: int, active: Iterable[str], turn: int) -> None:
        """A student gets so much of the worker, or gives it back.

        Args:
            cost: what it gets; negative where it had been counted on to take more.
            active: students that have something to give, or are still to say so.
            turn: of the worker; bounds what is owed.
        """
        own = self._jobs[student]
        jobs = {id(job): job for job in (own, *(self._jobs[each] for each in active))}
        owed = [job for job in jobs.values() if job.priority == own.priority]
        weights = sum(job.weight for job in owed)
        own.deficit -= cost
        most = float(MOST_TURNS * turn)
        for job in owed:
            job.deficit = max(-most, min(most, job.deficit + cost * job.weight / weights))

    def rests(self, student: str, active: Iterable[str]) -> None:
        """A student has nothing to give: nothing is owed to its job, if no other rank of it has.

        Args:
            active: students that have something to give, or are still to say so.
        """
        own = self._jobs[student]
        jobs = {id(job): job for job in (self._jobs[each] for each in active)}
        if id(own) in jobs or own.deficit <= 0.0:
            return
        owing = [job for job in jobs.values() if job.priority == own.priority]
        weights = sum(job.weight for job in owing)
        for job in owing:  # what they had instead they need not make up for
            job.deficit += own.deficit * job.weight / weights
        own.deficit = 0.0

    def _part(self) -> None:
        """Tell jobs apart, where any is named. Those that were told apart before keep what they are owed."""
        self.several = any(share.named for share in self._said.values())
        if not self.several:
            self._jobs = dict.fromkeys(self._said, SharedJob())
            return
        of_job: dict[str, list[str]] = {}
        for student, share in self._said.items():
            of_job.setdefault(f"job {share.job}" if share.job else f"student {student}", []).append(student)
        former, self._jobs = self._jobs, {}
        kept: set[int] = set()
        for students in of_job.values():
            known = [former[each] for each in students if each in former and id(former[each]) not in kept]
            job = known[0] if known else SharedJob()
            kept.add(id(job))
            # Ranks of one job say the same, unless they were started with different words: the most counts.
            job.weight = max(self._said[each].weight or 1 for each in students)
            job.priority = max(self._said[each].priority for each in students)
            self._jobs |= dict.fromkeys(students, job)
