"""Jobs that share teacher groups: what each asks of them, and what it may be degraded to. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edldist.coordinator.members.membership import Member
from edldist.coordinator.scaling.load import GroupLoad, StudentNeed
from edldist.wire.messages import Degradation

__all__ = ["Job", "Places", "Relief", "demand", "jobs_of", "reliefs"]

Places = Mapping[str, int]
"""Of each job, by its name, which place of its chain labels it."""


@dataclass(frozen=True)
class Job:
    """Students of one job.

    Attributes:
        chain: what labels it, the teacher that it asks first; that alone where it may not be degraded.
        wants: all groups that it asks.
    """

    name: str
    ranks: Sequence[Member]
    priority: int
    weight: int
    chain: Sequence[Degradation]
    wants: frozenset[str]

    def asks(self, places: Places) -> frozenset[str]:
        """The groups whose labels it wants now."""
        return frozenset({self.chain[places[self.name]].teacher}) if len(self.chain) > 1 else self.wants

    def hunger(self, rank: Member, group: str) -> float | None:
        """Samples per second that a rank would take of a group; all that it takes, where one labels all."""
        known = {need.group: need.hunger for need in rank.needs if need.hunger is not None}
        if len(self.chain) > 1:
            return sum(known.values()) or None
        return known.get(group, 0.0 if known else None)


class Relief(NamedTuple):
    """A job may be labelled by what comes next in its chain."""

    job: Job
    place: int

    @property
    def by_codec(self) -> bool:
        """Whether the same workers go on, with a smaller codec."""
        return bool(self.job.chain[self.place].codec)


def jobs_of(students: Sequence[Member]) -> list[Job]:
    """The jobs of some students, those that are degraded first at the front."""
    ranks: dict[str, list[Member]] = {}
    for member in students:
        ranks.setdefault(member.register.share.job or member.register.id, []).append(member)
    jobs = []
    for name, own in ranks.items():
        first = own[0].register
        jobs.append(
            Job(
                name,
                own,
                max(each.register.share.priority for each in own),
                max(each.register.share.weight or 1 for each in own),
                [Degradation(teacher=first.teachers[0]), *first.degrade],
                frozenset(group for each in own for group in each.register.teachers),
            )
        )
    return sorted(jobs, key=lambda job: (job.priority, job.weight, job.name))


def reliefs(group: str, jobs: Sequence[Job], known: Mapping[str, GroupLoad]) -> list[Relief]:
    """What may relieve a group, in that order: job after job, each as far as it allows."""
    return [
        Relief(job, place + 1)
        for job in jobs
        for place, (at, following) in enumerate(zip(job.chain, job.chain[1:], strict=False))
        if at.teacher == group and known.get(following.teacher, GroupLoad()).workers
    ]


def demand(group: str, jobs: Sequence[Job], places: Places) -> float | None:
    """Samples per second that some jobs would take of a group; None if nobody can tell."""
    needs = [
        StudentNeed(
            trains_with=rank.register.group, hunger=job.hunger(rank, group), starved=rank.starved or 0.0
        )
        for job in jobs
        if group in job.asks(places)
        for rank in job.ranks
    ]
    return GroupLoad(students=needs).demand
