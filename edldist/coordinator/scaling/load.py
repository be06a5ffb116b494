"""What is asked of each teacher group, and what it can give: figures of its members, put together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from edldist.coordinator.members.membership import Member

__all__ = ["GroupLoad", "StudentNeed", "WorkerGift", "loads"]

MOST_STARVED = 0.95
"""A larger share of waiting is not divided by: what is left of the time is too little to measure in."""


@dataclass(frozen=True)
class WorkerGift:
    """A worker that does not drain.

    Attributes:
        id: its name.
        device: type of what it computes on.
        capacity: samples per second that it labels while it never waits for tasks; None if not known yet.
        given: samples per second that it labelled in the last seconds.
        joined_at: monotonic seconds.
        failing: students give it nothing, because its model keeps failing.
    """

    id: str
    device: str = ""
    capacity: float | None = None
    given: float = 0.0
    joined_at: float = 0.0
    failing: bool = False


@dataclass(frozen=True)
class StudentNeed:
    """A student rank that wants labels of the group.

    Attributes:
        trains_with: name of the process group that it takes its steps with; empty if it trains alone.
        hunger: samples per second that it would take if it never waited; None if not known yet, 0 if it
            needs nothing of the group.
        starved: share of the time in which ``hunger`` was measured that it waited for labels.
        taken: samples per second that it took in the last seconds.
        lacking: samples that it has read and that nobody has labelled.
        buffered, low, high: labelled batches that its loop has not taken, and the bounds of that number.
    """

    trains_with: str = ""
    hunger: float | None = None
    starved: float = 0.0
    taken: float = 0.0
    lacking: int = 0
    buffered: int = 0
    low: int = 0
    high: int = 0


@dataclass(frozen=True)
class GroupLoad:
    """One teacher group: its workers, those that drain, and the students that want it."""

    workers: Sequence[WorkerGift] = ()
    draining: int = 0
    students: Sequence[StudentNeed] = ()

    @property
    def demand(self) -> float | None:
        """Samples per second that the students would take if they never waited; None if nobody can tell.

        Ranks that train together take their steps together: while one waits for labels, the others wait for
        that one in a collective, and each takes the time for its own work. So the share of waiting of the
        hungriest of them is that of all. One whose hunger is not known counts as the mean of those that
        are.
        """
        groups: dict[str, list[StudentNeed]] = {}
        for number, student in enumerate(self.students):
            groups.setdefault(student.trains_with or f"alone {number}", []).append(student)
        known = [
            _unheld(student.hunger, student.starved, max(other.starved for other in ranks))
            for ranks in groups.values()
            for student in ranks
            if student.hunger is not None
        ]
        if not known:
            return None if self.students else 0.0
        return fmean(known) * len(self.students)

    @property
    def taken(self) -> float:
        """Samples per second that the students took in the last seconds."""
        return sum(student.taken for student in self.students)

    @property
    def starved(self) -> float | None:
        """Share of waiting of the student that waits most; None without any whose hunger is known."""
        return max((student.starved for student in self.students if student.hunger is not None), default=None)

    @property
    def asked(self) -> bool:
        """Whether anybody takes labels of the group, or waits for some."""
        return any(student.lacking or (student.taken and student.hunger != 0) for student in self.students)

    @property
    def by_device(self) -> dict[str, float]:
        """Mean capacity of the workers on each type of device, as far as known."""
        capacities: dict[str, list[float]] = {}
        for worker in self.workers:
            if worker.capacity is not None:
                capacities.setdefault(worker.device, []).append(worker.capacity)
        return {device: fmean(known) for device, known in sorted(capacities.items())}

    def capacities(self, typical: float | None = None) -> list[float]:
        """Samples per second of each worker, in their order; one that has not labelled yet is like its kind.

        Its kind are those on its type of device, else all of the group, else ``typical``. Empty if there is
        nothing to go by.
        """
        by_device = self.by_device
        if by_device:
            typical = fmean(worker.capacity for worker in self.workers if worker.capacity is not None)
        if typical is None:
            return []
        return [
            by_device.get(worker.device, typical) if worker.capacity is None else worker.capacity
            for worker in self.workers
        ]

    def leaving(self) -> list[str]:
        """The workers in the order in which they should leave.

        First those that students give nothing; then the slowest, because so most labels a second are left for
        the number of workers that stay, and where all of them cost the same, the slowest is the one whose
        labels cost most; of equals the youngest, whose host was at it for the shortest time.
        """
        speed = dict(zip((worker.id for worker in self.workers), self.capacities(1.0), strict=True))
        ordered = sorted(
            self.workers, key=lambda each: (not each.failing, speed[each.id], -each.joined_at, each.id)
        )
        return [worker.id for worker in ordered]


def _unheld(hunger: float, starved: float, most_starved: float) -> float:
    """What a rank would take if no rank of its group waited."""
    return hunger * (1 - min(starved, MOST_STARVED)) / (1 - min(most_starved, MOST_STARVED))


def loads(members: Iterable[Member]) -> Mapping[str, GroupLoad]:
    """The load of every group that has a worker, or a student that wants it."""
    workers: dict[str, list[WorkerGift]] = {}
    draining: dict[str, int] = {}
    students: dict[str, list[StudentNeed]] = {}
    for member in members:
        register = member.register
        if not member.is_teacher:
            for group, need in _needs(member).items():
                students.setdefault(group, []).append(need)
        elif member.stats.get("draining") is True:
            draining[register.group] = draining.get(register.group, 0) + 1
        else:
            gift = WorkerGift(
                register.id,
                register.device_type,
                member.capacity,
                member.recent.value or 0.0,
                member.joined_at,
                bool(member.stats.get("quarantine")),
            )
            workers.setdefault(register.group, []).append(gift)
    return {
        group: GroupLoad(workers.get(group, ()), draining.get(group, 0), students.get(group, ()))
        for group in workers.keys() | draining.keys() | students.keys()
    }


def _needs(member: Member) -> dict[str, StudentNeed]:
    register = member.register
    told = {need.group: need for need in member.needs}
    needs: dict[str, StudentNeed] = {}
    for group in register.teachers:
        need = told.get(group)
        needs[group] = StudentNeed(
            trains_with=register.group,
            hunger=need.hunger if need else None,
            starved=member.starved or 0.0,
            taken=member.recent.value or 0.0,
            lacking=need.lacking if need else 0,
            buffered=need.buffered if need else 0,
            low=register.low_watermark,
            high=register.high_watermark,
        )
    return needs
