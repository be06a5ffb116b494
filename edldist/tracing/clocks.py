"""By how much the clocks of hosts differ, estimated from what was sent to and fro in a trace. Pure.

Monotonic clocks of one host are one clock. Between two, every task that was sent is a message with two times:
when it left, by one clock, and when it came, by the other; its labels are a message back. With the smallest
difference of each way, a and b, the clocks differ by (a - b) / 2 within (a + b) / 2, which is half of the
fastest round trip (as in NTP, RFC 5905, section 8; the smallest delay as in its clock filter, section 10).
The order to record and the answer to it are such messages between a member and the coordinator, too. What is
not related directly is so by others: by the way whose errors are least together.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from edldist.tracing.kinds import Kind
from edldist.tracing.process import TracedProcess

__all__ = ["Offset", "offsets"]


class Offset(NamedTuple):
    """By how many seconds a clock is ahead of the reference, and by how many this may be wrong."""

    seconds: float
    error_s: float


class _Delays:
    """The smallest difference, of each pair of clocks, between when a message came and when it left."""

    def __init__(self) -> None:
        self._least: dict[tuple[str, str], float] = {}

    def see(self, sender: str, receiver: str, left: float, came: float) -> None:
        if sender != receiver:
            way = (sender, receiver)
            self._least[way] = min(self._least.get(way, float("inf")), came - left)

    def between(self) -> dict[str, list[tuple[str, Offset]]]:
        """By clock, those to which there was a way and back, and by how much each is ahead of it."""
        known: dict[str, list[tuple[str, Offset]]] = {}
        for (one, other), there in self._least.items():
            if (back := self._least.get((other, one))) is not None:
                # Clocks that run apart, or a message that was paired wrongly, make the sum negative.
                offset = Offset((there - back) / 2, abs(there + back) / 2)
                known.setdefault(one, []).append((other, offset))
        return known


def offsets(processes: Sequence[TracedProcess], coordinator: str, reference: str) -> dict[str, Offset]:
    """How far each clock is ahead of the reference; those of which nobody knows are left out.

    Args:
        coordinator: name of the coordinator's clock.
        reference: name of the clock that all others are compared with.
    """
    delays = _Delays()
    students = {process.id: process for process in processes if process.is_student}
    for process in processes:
        for each in process.exchanges:
            delays.see(coordinator, process.clock, each.ordered_s, each.received_s)
            delays.see(process.clock, coordinator, each.sent_s, each.arrived_s)
    left = _times(students.values(), Kind.LEASED, students, end=True)
    came_back = _times(students.values(), Kind.PLACED, students)
    for worker in processes:
        if worker.is_student:
            continue
        for task, came in _times([worker], Kind.RECEIVED, students).items():
            if task in left:
                delays.see(students[task[0]].clock, worker.clock, left[task], came)
        for task, went in _times([worker], Kind.RETURNED, students).items():
            if task in came_back:
                delays.see(worker.clock, students[task[0]].clock, went, came_back[task])
    return _nearest(delays.between(), reference)


def _times(
    processes: Iterable[TracedProcess], kind: Kind, students: dict[str, TracedProcess], *, end: bool = False
) -> dict[tuple[str, int], float]:
    """When something happened to each task, by its student and lease. What happened twice is of no use."""
    times: dict[tuple[str, int], float] = {}
    twice = set()
    for process in processes:
        for student, record in process.tasks(kind, students):
            task = (student, record.key)
            if task in times:
                twice.add(task)
            times[task] = record.end if end else record.start
    return {task: at for task, at in times.items() if task not in twice}


def _nearest(known: dict[str, list[tuple[str, Offset]]], reference: str) -> dict[str, Offset]:
    """Offsets along the ways whose errors are least (Dijkstra)."""
    found: dict[str, Offset] = {}
    heap = [(0.0, reference, 0.0)]
    while heap:
        error_s, clock, seconds = heapq.heappop(heap)
        if clock in found:
            continue
        found[clock] = Offset(seconds, error_s)
        for other, offset in known.get(clock, ()):
            if other not in found:
                heapq.heappush(heap, (error_s + offset.error_s, other, seconds + offset.seconds))
    return found
