"""What a short trace adds to a job's figures: where the time of tasks and passes goes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from edldist.tracing.kinds import Kind
from edldist.tracing.process import TracedProcess

__all__ = ["PathFigures", "path_figures"]

_STAGES = (Kind.DECODE, Kind.COPY_IN, Kind.FORWARD, Kind.ENCODE, Kind.COPY_OUT)


@dataclass(frozen=True)
class PathFigures:
    """Of one teacher group.

    Attributes:
        turnaround_s: from when a task was sent until its labels came, in the median; None if none did.
        transit_s: the part of it that both ways took, in the median.
        stages: share of each stage in the time of passes; empty if there were none.
        tasks: how many were followed.
    """

    turnaround_s: float | None
    transit_s: float | None
    stages: dict[Kind, float]
    tasks: int


def path_figures(processes: Sequence[TracedProcess]) -> dict[str, PathFigures]:
    """By group. No clock is compared with another's: both ways together are what is left of a turnaround."""
    students = {process.id: process for process in processes if process.is_student}
    left: dict[tuple[str, int], float] = {}
    turned: dict[tuple[str, int], float] = {}
    for process in students.values():
        left |= {(process.id, each.key): each.end for each in process.of(Kind.LEASED)}
        for each in process.of(Kind.PLACED):
            if (sent := left.get((process.id, each.key))) is not None:
                turned[process.id, each.key] = each.start - sent
    found: dict[str, PathFigures] = {}
    for group in sorted({process.group for process in processes if not process.is_student}):
        turnarounds: list[float] = []
        transits: list[float] = []
        seconds = dict.fromkeys(_STAGES, 0.0)
        for worker in processes:
            if worker.is_student or worker.group != group:
                continue
            came = {
                (student, each.key): each.start for student, each in worker.tasks(Kind.RECEIVED, students)
            }
            for student, each in worker.tasks(Kind.RETURNED, students):
                task = (student, each.key)
                if task in came and task in turned:
                    turnarounds.append(turned[task])
                    transits.append(max(0.0, turned[task] - (each.start - came[task])))
            for kind in _STAGES:
                seconds[kind] += sum(each.end - each.start for each in worker.of(kind))
        total = sum(seconds.values())
        found[group] = PathFigures(
            median(turnarounds) if turnarounds else None,
            median(transits) if transits else None,
            {kind: spent / total for kind, spent in seconds.items()} if total else {},
            len(turnarounds),
        )
    return found
