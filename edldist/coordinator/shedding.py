"""What jobs that share a fleet are told while it is overloaded. Pure: members in, messages and events out.

Who is degraded, and who waits, follows from the members alone and from each group's rung (``overload``):

* of the jobs that a group serves and that allow it, those of the lowest priority and weight are degraded
  first, each to the next group that it names, if that has workers;
* at the last rung, jobs wait while those of higher priorities take all that the group gives: never those of
  the highest priority. One that waits is let in when these leave some of it.

What a student is told holds for a while, and is said again as long as it is so. So nobody needs to survive: a
fresh coordinator begins at the ground, and a student that hears nothing more goes on as if there were no
overload. Workers serve by priority and weight in any case.

As long as no student names a weight or a priority, or may be degraded, nothing is done and nobody is told.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from edldist.coordinator.load import GroupLoad, StudentNeed, loads
from edldist.coordinator.membership import Action, Member, Record, Send
from edldist.coordinator.overload import Overload, Pressure, Step
from edldist.observe.overload import STEPS
from edldist.wire.messages import Event, Scalar, Shed
from edldist.wire.transport import Sender

__all__ = ["Shedding"]

DECIDE_EVERY_S = 1.0
HOLDS_S = 5.0
AGAIN_S = 2.0
"""How long what a student was told holds, and how often it is said again."""
FULL, LET_IN = 0.95, 0.85
"""Where jobs of higher priorities take so much of what a group gives, one waits; where less, it is let in."""


@dataclass(frozen=True)
class _Job:
    """Students of one job.

    Attributes:
        chain: the group that it asks, and those that it may be degraded to, the next first; one where it may
            not be.
        wants: all groups that it asks.
    """

    name: str
    ranks: Sequence[Member]
    priority: int
    weight: int
    chain: Sequence[str]
    wants: frozenset[str]


class Shedding:
    """Steps against overload, of all groups. Owned by the coordinator's main thread."""

    def __init__(self) -> None:
        self._groups: dict[str, Overload] = {}
        self._waiting: dict[str, tuple[float, str]] = {}  # by job, since when, and why
        self._told: dict[Sender, tuple[Shed, float]] = {}
        self._due_at = float("-inf")

    def step(self, group: str) -> Step:
        """What is done about a group's overload."""
        known = self._groups.get(group)
        return Step.NONE if known is None else known.step

    def due(self, now: float) -> bool:
        """Whether to ``decide``."""
        return now >= self._due_at

    def decide(self, members: Collection[Member], now: float, wall: float) -> list[Action]:
        """Look at all members, and say what is to be said.

        Args:
            members: all.
            now: monotonic seconds.
            wall: unix seconds, for events.
        """
        self._due_at = now + DECIDE_EVERY_S
        students = [member for member in members if not member.is_teacher]
        if not any(each.register.share.named or each.register.fallbacks for each in students):
            students = []
            if not self._groups:
                return []
        jobs, known = _jobs(students), loads(members)
        degraded = self._degraded(jobs, known)
        actions: list[Action] = []
        for group in sorted({name for job in jobs for name in job.wants} | self._groups.keys()):
            actions += self._look(group, jobs, degraded, known, now, wall)
        degraded = self._degraded(jobs, known)
        actions += self._let_wait(jobs, degraded, known, now, wall)
        actions += self._tell(jobs, degraded, now)
        return actions

    def _degraded(self, jobs: Sequence[_Job], known: Mapping[str, GroupLoad]) -> dict[str, int]:
        """Of each job, how many degradations apply now."""
        return {job.name: 0 for job in jobs} | self._chained(jobs, known)

    def _chained(self, jobs: Sequence[_Job], known: Mapping[str, GroupLoad]) -> dict[str, int]:
        applied: dict[str, int] = {}
        for group, overload in sorted(self._groups.items()):
            for job in _degradable(group, jobs, known)[: overload.degraded]:
                applied[job.name] = max(applied.get(job.name, 0), job.chain.index(group) + 1)
        return applied

    def _look(
        self,
        group: str,
        jobs: Sequence[_Job],
        degraded: Mapping[str, int],
        known: Mapping[str, GroupLoad],
        now: float,
        wall: float,
    ) -> list[Action]:
        """Let a group's overload take its course."""
        overload = self._groups.setdefault(group, Overload())
        served = [job for job in jobs if _asks(job, degraded) & {group}]
        candidates = _degradable(group, jobs, known)
        load = known.get(group, GroupLoad())
        lower = dict(degraded)
        if overload.step is Step.DEGRADE:
            last = candidates[min(overload.degraded, len(candidates)) - 1] if candidates else None
            if last is not None:
                lower[last.name] = last.chain.index(group)
        now_asked, below = _demand(group, jobs, degraded), _demand(group, jobs, lower)
        gives = sum(load.capacities())
        pressure = None
        if now_asked == below == 0.0:
            pressure = Pressure(0.0, 0.0)
        elif gives and now_asked is not None and below is not None:
            pressure = Pressure(now_asked / gives, below / gives)
        before = overload.step, overload.level
        if not overload.look(pressure, len(candidates), len({job.priority for job in served}) > 1, now):
            return []
        if not jobs and not overload.level:
            del self._groups[group]
        fields: dict[str, Scalar] = {
            "name": group,
            "before": STEPS[before[0]],
            "step": STEPS[overload.step],
            "demand": None if now_asked is None else round(now_asked, 3),
            "capacity": round(gives, 3),
        }
        return [Record(Event(event="overload_step", t=wall, fields=fields))]

    def _let_wait(
        self,
        jobs: Sequence[_Job],
        degraded: Mapping[str, int],
        known: Mapping[str, GroupLoad],
        now: float,
        wall: float,
    ) -> list[Action]:
        """Let jobs wait, or let them in."""
        actions: list[Action] = []
        former, self._waiting = self._waiting, {}
        for job in jobs:
            since, _ = former.pop(job.name, (None, ""))
            why = self._kept_out(job, jobs, degraded, known, waits=since is not None)
            if why:
                self._waiting[job.name] = (now if since is None else since, why)
            if why and since is None:
                actions.append(_event("job_waits", job, wall, reason=why))
            elif since is not None and not why:
                actions.append(_event("job_let_in", job, wall, waited_s=round(now - since, 3)))
        return actions

    def _kept_out(
        self,
        job: _Job,
        jobs: Sequence[_Job],
        degraded: Mapping[str, int],
        known: Mapping[str, GroupLoad],
        waits: bool,
    ) -> str:
        """Why a job waits; empty if it does not."""
        for group in sorted(_asks(job, degraded)):
            if self.step(group) is not Step.REFUSE:
                continue
            above = [other for other in jobs if other.priority > job.priority]
            taken = _demand(group, above, degraded)
            gives = sum(known.get(group, GroupLoad()).capacities())
            if taken and gives and taken >= (LET_IN if waits else FULL) * gives:
                return (
                    f"jobs of a higher priority than {job.priority} could take {taken:.4g} samples/s of "
                    f"teacher {group!r}, which gives {gives:.4g}"
                )
        return ""

    def _tell(self, jobs: Sequence[_Job], degraded: Mapping[str, int], now: float) -> list[Action]:
        """Say to every student what it is to do, if that is new or was said a while ago."""
        actions: list[Action] = []
        told, self._told = self._told, {}
        for job in jobs:
            step = max((self.step(group) for group in _asks(job, degraded)), default=Step.NONE)
            step = max(step, Step.DEGRADE) if degraded[job.name] else step
            _, why = self._waiting.get(job.name, (0.0, ""))
            message = Shed(step=int(step), degrade=degraded[job.name], waits=why, retry_after_s=HOLDS_S)
            for rank in job.ranks:
                said, at = told.get(rank.peer, (None, 0.0))
                if said is None and step is Step.NONE:
                    continue
                if said != message or now - at >= AGAIN_S:
                    actions.append(Send(rank.peer, message))
                    at = now
                if step is not Step.NONE:
                    self._told[rank.peer] = message, at
        return actions


def _jobs(students: Sequence[Member]) -> list[_Job]:
    """The jobs of some students, those that are degraded first at the front."""
    ranks: dict[str, list[Member]] = {}
    for member in students:
        ranks.setdefault(member.register.share.job or member.register.id, []).append(member)
    jobs = []
    for name, own in ranks.items():
        first = own[0].register
        chain = first.teachers if first.fallbacks == len(first.teachers) - 1 else first.teachers[:1]
        jobs.append(
            _Job(
                name,
                own,
                max(each.register.share.priority for each in own),
                max(each.register.share.weight or 1 for each in own),
                chain,
                frozenset(group for each in own for group in each.register.teachers),
            )
        )
    return sorted(jobs, key=lambda job: (job.priority, job.weight, job.name))


def _asks(job: _Job, degraded: Mapping[str, int]) -> frozenset[str]:
    """The groups whose labels a job wants now."""
    return frozenset({job.chain[degraded[job.name]]}) if len(job.chain) > 1 else job.wants


def _degradable(group: str, jobs: Sequence[_Job], known: Mapping[str, GroupLoad]) -> list[_Job]:
    """The jobs that a group may be relieved of, in that order."""

    def may(job: _Job) -> bool:
        if group not in job.chain[:-1]:
            return False
        following = known.get(job.chain[job.chain.index(group) + 1])
        return following is not None and bool(following.workers)

    return [job for job in jobs if may(job)]


def _demand(group: str, jobs: Sequence[_Job], degraded: Mapping[str, int]) -> float | None:
    """Samples per second that some jobs would take of a group; None if nobody can tell."""
    needs = [
        StudentNeed(
            trains_with=rank.register.group, hunger=_hunger(rank, job, group), starved=rank.starved or 0.0
        )
        for job in jobs
        if group in _asks(job, degraded)
        for rank in job.ranks
    ]
    return GroupLoad(students=needs).demand


def _hunger(rank: Member, job: _Job, group: str) -> float | None:
    """Samples per second that a rank would take of a group; all that it takes, where one group labels all."""
    known = {need.group: need.hunger for need in rank.needs if need.hunger is not None}
    if len(job.chain) > 1:
        return sum(known.values()) or None
    return known.get(group, 0.0 if known else None)


def _event(name: str, job: _Job, wall: float, **fields: Scalar) -> Record:
    return Record(
        Event(event=name, t=wall, fields={"job": job.name, **fields}, job=job.ranks[0].register.job)
    )
