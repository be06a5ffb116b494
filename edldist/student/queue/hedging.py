"""Which task may be leased a second time, and to whom: an old one that holds the loop up. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from edldist.student.queue.task import HeldLease, Task
from edldist.student.queue.workers import Worker

__all__ = ["candidates", "task_for"]


def candidates(
    head_leases: Collection[HeldLease], teacher: str, now: float, older_than_s: float
) -> list[HeldLease]:
    """Leases of the head batch whose tasks have no second lease yet and are old enough.

    Args:
        head_leases: the oldest first, as the result.
    """
    return [
        lease
        for lease in head_leases
        if now - lease.since > older_than_s
        and lease.overdue_at is None
        and (task := lease.tasks[0]).teacher == teacher
        and len(task.leases) == 1
        and not task.alone
    ]


def task_for(worker: Worker, room: int | None, now: float, leases: Sequence[HeldLease]) -> Task | None:
    """The first candidate that a worker may take: older than three times its own latency.

    Args:
        room: what it takes may cost so much; None: any.
    """
    age_s = 3 * (worker.latency_s or 0.0)
    for lease in leases:
        if now - lease.since <= age_s:
            break  # those behind it are younger
        task = lease.tasks[0]
        if lease.number not in worker.leases and (room is None or task.cost <= room):
            return task
    return None
