"""Who waits for whom in a job, and why, in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from edldist.wire.messages import MemberStatus
from edldist.wording import duration

__all__ = ["waits"]

WORTH_SAYING_S = 1.0


def waits(member: MemberStatus, members: Sequence[MemberStatus]) -> list[str]:
    """What a member waits for; empty if it does not.

    Args:
        member: one of them.
        members: all of the job.
    """
    teachers = [other for other in members if other.role == "teacher"]
    if member.role == "teacher":
        return _worker_waits(member, [other for other in members if other.role == "student"])
    return _student_waits(member, teachers)


def _worker_waits(worker: MemberStatus, students: Sequence[MemberStatus]) -> list[str]:
    if worker.links or worker.stats.get("draining"):
        return []
    wanted = sorted({name for student in students for name in student.teachers})
    if not students:
        return ["waits for students: none is here"]
    if worker.group not in wanted:
        return [f"waits for students that want {worker.group!r}: those that are here want {_listed(wanted)}"]
    return ["waits for students: others serve those that are here"]


def _student_waits(student: MemberStatus, teachers: Sequence[MemberStatus]) -> list[str]:
    groups = sorted({worker.group for worker in teachers})
    found = [
        f"waits for teacher {name!r}: no worker of it is here"
        + (f"; there are workers of {_listed(groups)}" if groups else "")
        for name in student.teachers
        if name not in groups
    ]
    waiting_s = student.stats.get("waiting_s")
    if found or not isinstance(waiting_s, int | float) or not waiting_s >= WORTH_SAYING_S:
        return found
    return [f"waits for labels for {duration(float(waiting_s))}: {_why(student, teachers)}"]


def _why(student: MemberStatus, teachers: Sequence[MemberStatus]) -> str:
    wanted = [worker for worker in teachers if worker.group in student.teachers]
    serving = [worker for worker in wanted if worker.id in student.links]
    if not serving:
        return f"none of {len(wanted)} workers serves it yet"
    quarantined = [worker for worker in serving if worker.stats.get("quarantine")]
    if len(quarantined) == len(serving):
        reasons = [f"{worker.id}: {worker.stats['quarantine']}" for worker in quarantined]
        return f"all its workers are left out ({'; '.join(reasons)})"
    if not student.stats.get("teachers"):
        return (
            f"its workers ({', '.join(worker.id for worker in serving)}) have no connection to it at "
            f"{student.address}"
        )
    others = sorted({rank for worker in serving for rank in worker.links} - {student.id})
    shared = f", and {len(others)} other rank{'s' * (len(others) > 1)}" if others else ""
    return f"{len(serving)} of {len(wanted)} workers serve it{shared}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
