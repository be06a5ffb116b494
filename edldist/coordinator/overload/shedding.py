"""What jobs that share a fleet are told while it is overloaded. Pure: members in, messages and events out.

Who is degraded, and who waits, follows from the members alone and from each group's rung (``overload``):

* of the jobs that a group serves and that allow it, those of the lowest priority and weight are degraded
  first, each to what it names next: a smaller codec, or another group, if that has workers;
* at the last rung, jobs wait while those of higher priorities take all that the group gives: never those of
  the highest priority. One that waits is let in when these leave some of it.

What a student is told holds for a while, and is said again as long as it is so. So nobody needs to survive: a
fresh coordinator begins at the ground, and a student that hears nothing more goes on as if there were no
overload. Workers serve by priority and weight in any case.

As long as no student names a weight or a priority, or may be degraded, nothing is done and nobody is told.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from edldist.coordinator.members.membership import Action, Member, Record, Send
from edldist.coordinator.overload.jobs import Job, Places, Relief, demand, jobs_of, reliefs
from edldist.coordinator.overload.overload import OVER, UP_S, Overload, Pressure, Step
from edldist.coordinator.scaling.load import GroupLoad, loads
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
CODEC_UP_S = 20.0
"""What a smaller codec brings shows as workers' capacities do, over some ten seconds: the next step waits."""


class Shedding:
    """Steps against overload, of all groups. Owned by the coordinator's main thread."""

    def __init__(self) -> None:
        self._groups: dict[str, Overload] = {}
        # By group and rung, samples per second of a worker when the rung above was climbed to.
        self._gave: dict[tuple[str, int], float] = {}
        self._moved_at: dict[str, float] = {}  # by group, when its rung was another one last
        # By group, job and place, smaller codecs with which workers gave no more: not again in this overload.
        self._futile: set[tuple[str, str, int]] = set()
        self._waiting: dict[str, tuple[float, str]] = {}  # by job, since when, and why
        self._places: dict[str, int] = {}
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
        if not any(each.register.share.named or each.register.degrade for each in students):
            students = []
            if not self._groups:
                return []
        jobs, known = jobs_of(students), loads(members)
        before = self._placed(jobs, known)
        actions: list[Action] = []
        for group in sorted({name for job in jobs for name in job.wants} | self._groups.keys()):
            actions += self._look(group, jobs, before, known, now, wall)
        places = self._placed(jobs, known)
        actions += self._note(jobs, places, wall)
        actions += self._let_wait(jobs, places, known, now, wall)
        actions += self._tell(jobs, places, now)
        return actions

    def _placed(self, jobs: Sequence[Job], known: Mapping[str, GroupLoad]) -> dict[str, int]:
        """What labels each job, as far as the groups' overloads go."""
        places = {job.name: 0 for job in jobs}
        for group, overload in self._groups.items():
            for job, place in self._reliefs(group, jobs, known)[: overload.degraded]:
                places[job.name] = max(places[job.name], place)
        return places

    def _reliefs(self, group: str, jobs: Sequence[Job], known: Mapping[str, GroupLoad]) -> list[Relief]:
        """What may relieve a group, but for what has been of no use."""
        return [
            relief
            for relief in reliefs(group, jobs, known)
            if (group, relief.job.name, relief.place) not in self._futile
        ]

    def _look(
        self,
        group: str,
        jobs: Sequence[Job],
        places: Places,
        known: Mapping[str, GroupLoad],
        now: float,
        wall: float,
    ) -> list[Action]:
        """Let a group's overload take its course."""
        overload = self._groups.setdefault(group, Overload())
        served = [job for job in jobs if group in job.asks(places)]
        candidates, load = self._reliefs(group, jobs, known), known.get(group, GroupLoad())
        top = candidates[min(overload.degraded, len(candidates)) - 1] if candidates else None
        if overload.step is not Step.DEGRADE:
            top = None
        asked, gives = demand(group, jobs, places), sum(load.capacities())
        before = overload.step, overload.level
        pressure = self._pressure(group, top, jobs, places, load)
        if top is not None and pressure is not None and self._was_in_vain(group, top, pressure, load, now):
            self._futile.add((group, top.job.name, top.place))
            self._moved_at[group] = now
            candidates.remove(top)
            pressure = None  # what it comes to without this one is to be seen
        moved = overload.look(
            pressure,
            len(candidates),
            len({job.priority for job in served}) > 1,
            now,
            CODEC_UP_S if top is not None and top.by_codec else UP_S,
        )
        if not moved:
            return []
        self._moved_at[group] = now
        if not overload.level:
            self._futile = {each for each in self._futile if each[0] != group}
        if overload.level > before[1] and load.workers:
            self._gave[group, before[1]] = gives / len(load.workers)
        if not jobs and not overload.level:
            del self._groups[group], self._moved_at[group]
            self._gave = {at: gave for at, gave in self._gave.items() if at[0] != group}
        fields: dict[str, Scalar] = {
            "name": group,
            "before": STEPS[before[0]],
            "step": STEPS[overload.step],
            "demand": None if asked is None else round(asked, 3),
            "capacity": round(gives, 3),
        }
        return [Record(Event(event="overload_step", t=wall, fields=fields))]

    def _pressure(
        self, group: str, top: Relief | None, jobs: Sequence[Job], places: Places, load: GroupLoad
    ) -> Pressure | None:
        """What is asked of a group, over what it gives; None if nobody can tell.

        Args:
            top: the last relief that applies; it is the first to end.
        """
        lower = dict(places) if top is None else {**places, top.job.name: top.place - 1}
        now, below = demand(group, jobs, places), demand(group, jobs, lower)
        gives = without = sum(load.capacities())
        if top is not None and top.by_codec:
            # Without it workers give what they did before it, as far as anybody remembers.
            gave = self._gave_before(group)
            without = gives if gave is None else min(gives, gave * len(load.workers))
        if now == below == 0.0:
            return Pressure(0.0, 0.0)
        if not gives or not without or now is None or below is None:
            return None
        return Pressure(now / gives, below / without)

    def _gave_before(self, group: str) -> float | None:
        """What a worker of a group gave before the rung where it is now."""
        return self._gave.get((group, self._groups[group].level - 1))

    def _was_in_vain(self, group: str, top: Relief, pressure: Pressure, load: GroupLoad, now: float) -> bool:
        """Whether workers give no more with a smaller codec, as where packing costs more than it saves."""
        gave = self._gave_before(group)
        if not top.by_codec or gave is None or now - self._moved_at.get(group, now) < CODEC_UP_S:
            return False
        return pressure.now > OVER and sum(load.capacities()) <= gave * len(load.workers)

    def _note(self, jobs: Sequence[Job], places: dict[str, int], wall: float) -> list[Action]:
        """Record what labels jobs from now on, where that is something else."""
        former, self._places = self._places, places
        return [
            _event("job_degraded", job, wall, to=str(job.chain[place]) if place else "what it asks")
            for job in jobs
            if (place := places[job.name]) != former.get(job.name, 0)
        ]

    def _let_wait(
        self,
        jobs: Sequence[Job],
        places: Places,
        known: Mapping[str, GroupLoad],
        now: float,
        wall: float,
    ) -> list[Action]:
        """Let jobs wait, or let them in."""
        actions: list[Action] = []
        former, self._waiting = self._waiting, {}
        for job in jobs:
            since, _ = former.get(job.name, (None, ""))
            why = self._kept_out(job, jobs, places, known, waits=since is not None)
            if why:
                self._waiting[job.name] = (now if since is None else since, why)
                if since is None:
                    actions.append(_event("job_waits", job, wall, reason=why))
            elif since is not None:
                actions.append(_event("job_let_in", job, wall, waited_s=round(now - since, 3)))
        return actions

    def _kept_out(
        self,
        job: Job,
        jobs: Sequence[Job],
        places: Places,
        known: Mapping[str, GroupLoad],
        waits: bool,
    ) -> str:
        """Why a job waits; empty if it does not."""
        for group in sorted(job.asks(places)):
            if self.step(group) is not Step.REFUSE:
                continue
            above = [other for other in jobs if other.priority > job.priority]
            taken = demand(group, above, places)
            gives = sum(known.get(group, GroupLoad()).capacities())
            if taken and gives and taken >= (LET_IN if waits else FULL) * gives:
                return (
                    f"jobs of a higher priority than {job.priority} could take {taken:.4g} samples/s of "
                    f"teacher {group!r}, which gives {gives:.4g}"
                )
        return ""

    def _tell(self, jobs: Sequence[Job], places: Places, now: float) -> list[Action]:
        """Say to every student what it is to do, if that is new or was said a while ago."""
        actions: list[Action] = []
        told, self._told = self._told, {}
        for job in jobs:
            place = places[job.name]
            step = max((self.step(group) for group in job.asks(places)), default=Step.NONE)
            step = max(step, Step.DEGRADE) if place else step
            _, why = self._waiting.get(job.name, (0.0, ""))
            message = Shed(step=int(step), degrade=place, waits=why, retry_after_s=HOLDS_S)
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


def _event(name: str, job: Job, wall: float, **fields: Scalar) -> Record:
    return Record(
        Event(event=name, t=wall, fields={"job": job.name, **fields}, job=job.ranks[0].register.job)
    )
