"""Which task may be leased a second time, and to whom: an old one that holds the loop up. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from edldist.student.queue.batches import Batches
from edldist.student.queue.sleepers import Sleepers
from edldist.student.queue.task import HeldLease, Task
from edldist.student.queue.workers import Worker, Workers

__all__ = ["Hedging"]


class Hedging:
    """Looks for second leases in one queue.

    Args:
        batches, workers: those of the queue.
        cuts_fixed: whether cuts are the same whoever pulls, and so may be larger than what a worker asks for.
    """

    def __init__(self, batches: Batches, workers: Workers, cuts_fixed: bool) -> None:
        self._batches = batches
        self._workers = workers
        self._cuts_fixed = cuts_fixed

    def task_for(self, me: Worker, room: int, now: float, older_than_s: float) -> Task | None:
        """The task that a worker may take that has nothing to do (see ``LabelQueue.hedge``)."""
        return self._first(me, room, now, self._candidates(me.teacher, now, older_than_s))

    def sleepers(self, teacher: str, asleep: Sleepers, now: float, older_than_s: float) -> list[str]:
        """As many sleepers as there are tasks of which each could have one as a second worker."""
        leases = self._candidates(teacher, now, older_than_s) if asleep else []
        found: list[str] = []
        for worker, room in asleep.items() if leases else ():
            if self._first(self._workers[worker], room, now, leases) is not None:
                found.append(worker)
                if len(found) == len(leases):
                    break
        return found

    def _candidates(self, teacher: str, now: float, older_than_s: float) -> list[HeldLease]:
        """Leases of the head batch, the oldest first, whose tasks have no second one and are old enough."""
        return [
            lease
            for lease in self._workers.leases_of_batch(self._batches.head)
            if now - lease.since > older_than_s
            and lease.overdue_at is None
            and (task := lease.tasks[0]).teacher == teacher
            and len(task.leases) == 1
            and not task.alone
        ]

    def _first(self, me: Worker, room: int, now: float, leases: Sequence[HeldLease]) -> Task | None:
        """The first candidate that a worker may take: older than three times its own latency."""
        if not leases or not me.free:
            return None
        age_s = 3 * (me.latency_s or 0.0)
        for lease in leases:
            if now - lease.since <= age_s:
                break  # those behind it are younger
            task = lease.tasks[0]
            if lease.number not in me.leases and (self._cuts_fixed or task.cost <= room):
                return task
        return None
