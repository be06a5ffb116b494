"""What a member does at the moment, in one word and a tone, wherever a job is shown. Pure."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Literal

from edldist.wire.messages import MemberStatus, Status

__all__ = ["STYLES", "State", "Tone", "state_of", "states_of"]

Tone = Literal["good", "quiet", "wait", "bad"]

STYLES: dict[Tone, str] = {"good": "green", "quiet": "dim", "wait": "yellow", "bad": "red"}
"""How a terminal shows a tone."""

_LATE_INTERVALS, _LATE_S = 2.5, 1.0
"""Silence is worth a word after so many heartbeats' time, and so many seconds more."""
_WAITING_S = 1.0


@dataclass(frozen=True)
class State:
    """One word, and whether it is good news."""

    word: str
    tone: Tone


def state_of(member: MemberStatus, status: Status) -> State:
    """What a member does.

    ==========  =====================================================================================
    silent      nothing was heard of it for longer than two heartbeats: it is lost soon
    leaving     a worker that finishes what it holds
    left out    a worker that no student gives anything, because its model keeps failing
    waits       a worker that serves no student, or a student that has waited for a second for labels
    labels      a worker whose count of samples grew in the last seconds
    trains      a student whose count did
    idle        a worker that has students, and nothing to do
    busy        a student that takes no batch and waits for none: it evaluates, saves, or compiles
    starts      it is not known yet
    ==========  =====================================================================================

    Args:
        member: one of them.
        status: of the job.
    """
    return _state(member, status, _groups(status))


def states_of(status: Status) -> list[State]:
    """The same of all members, in their order, at a cost that grows with their number alone."""
    groups = _groups(status)
    return [_state(member, status, groups) for member in status.members]


def _groups(status: Status) -> Set[str]:
    return {member.group for member in status.members if member.role == "teacher"}


def _state(member: MemberStatus, status: Status, groups: Set[str]) -> State:
    if member.silent_s > _LATE_INTERVALS * status.heartbeat_interval_s + _LATE_S:
        return State("silent", "bad")
    return _worker(member) if member.role == "teacher" else _student(member, groups)


def _worker(worker: MemberStatus) -> State:
    if worker.stats.get("draining"):
        return State("leaving", "wait")
    if worker.stats.get("quarantine"):
        return State("left out", "bad")
    if not worker.links:
        return State("waits", "wait")
    if worker.samples_per_s is None:
        return State("starts", "quiet")
    return State("labels", "good") if worker.samples_per_s > 0 else State("idle", "quiet")


def _student(student: MemberStatus, groups: Set[str]) -> State:
    waiting_s = student.stats.get("waiting_s")
    if isinstance(waiting_s, int | float) and waiting_s >= _WAITING_S:
        return State("waits", "wait")
    if student.samples_per_s:
        return State("trains", "good")
    if not groups >= set(student.teachers):
        return State("waits", "wait")
    return State("starts" if not student.stats.get("batches") else "busy", "quiet")
