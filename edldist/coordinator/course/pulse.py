"""What all members do, second by second: members in, the figures of one row of the history out.

A member's counts grow with its heartbeats, so its rate is what it counted between its last two, over the time
between them: looking in between neither doubles nor misses anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edldist.coordinator.course.history import MOST_GROUPS, Key
from edldist.coordinator.members.membership import Member
from edldist.wire.messages import Scalar

__all__ = ["Pulse"]

SILENT_INTERVALS = 2.5
"""A member whose heartbeats stay away for longer does nothing, as far as anybody knows."""
LARGEST = 2.0**53


@dataclass
class _Beat:
    """The counts of a member's last heartbeat, and what it did before it."""

    process: str
    at: float
    samples: float
    starved_s: float
    full_s: float
    rate: float | None = None
    starved: float = 0.0
    full: float = 0.0


class Pulse:
    """Looks at members. Owned by the coordinator's main thread; forgets those that are gone.

    Args:
        heartbeat_interval_s: how often members are to be heard.
    """

    def __init__(self, heartbeat_interval_s: float) -> None:
        self._silent_s = SILENT_INTERVALS * heartbeat_interval_s
        self._beats: dict[str, _Beat] = {}

    def take(
        self, members: Mapping[str, Member], wanted: Callable[[str], int | None], now: float
    ) -> dict[Key, float]:
        """The figures of now.

        Args:
            members: all, by id.
            wanted: how many workers of a teacher group there should be; None if nobody can tell.
            now: monotonic seconds.
        """
        beats = {member_id: self._beat(member_id, member, now) for member_id, member in members.items()}
        self._beats = beats
        students = 0
        taken: float | None = 0.0
        starved = full = 0.0
        buffered: float | None = None
        unknown: set[str] = set()
        given: dict[str, list[float]] = {}
        for member_id, member in members.items():
            beat = beats[member_id]
            # One that did things before it was first seen here has a rate that nobody knows yet.
            known = beat.rate is not None or not beat.samples
            if member.is_teacher:
                if not known:
                    unknown.add(member.register.group)
                group = given.setdefault(member.register.group, [0.0, 0.0])
                group[0] += beat.rate or 0.0
                group[1] += member.stats.get("draining") is not True
                continue
            students += 1
            taken = taken + (beat.rate or 0.0) if known and taken is not None else None
            starved, full = max(starved, beat.starved), max(full, beat.full)
            if "buffered" in member.stats:
                level = _count(member.stats["buffered"])
                buffered = level if buffered is None else min(buffered, level)
            for name in member.register.teachers:
                given.setdefault(name, [0.0, 0.0])
        values: dict[Key, float] = {("", "students"): float(students)}
        if taken is not None:
            values["", "samples_per_s"] = taken
        if students:
            values |= {("", "starved"): starved, ("", "backpressure"): full}
        if buffered is not None:
            values["", "buffered"] = buffered
        for name in sorted(given)[:MOST_GROUPS]:
            rate, values[name, "workers"] = given[name]
            if name not in unknown:
                values[name, "samples_per_s"] = rate
            if (number := wanted(name)) is not None:
                values[name, "wanted"] = float(number)
        return values

    def _beat(self, member_id: str, member: Member, now: float) -> _Beat:
        stats = member.stats
        known = self._beats.get(member_id)
        if known is not None and member.beat_at == known.at and known.process == member.register.process:
            if now - known.at > self._silent_s:
                known.rate, known.starved, known.full = 0.0, 0.0, 0.0
            return known
        # Before the first batch a loop starts up; from then on it starves, also while it still waits.
        waiting_s = _count(stats.get("waiting_s")) if _count(stats.get("batches")) else 0.0
        beat = _Beat(
            member.register.process,
            member.beat_at,
            _count(stats.get("samples")),
            _count(stats.get("starved_s")) + waiting_s,
            _count(stats.get("backpressure_s")),
        )
        if known is None or known.process != beat.process or not beat.at > known.at > -math.inf:
            return beat
        seconds = beat.at - known.at
        beat.rate = max(0.0, beat.samples - known.samples) / seconds
        beat.starved = min(1.0, max(0.0, beat.starved_s - known.starved_s) / seconds)
        beat.full = min(1.0, max(0.0, beat.full_s - known.full_s) / seconds)
        return beat


def _count(value: Scalar) -> float:
    """A count or a duration that a member told; 0 for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LARGEST:
        return 0.0
    return float(value)
