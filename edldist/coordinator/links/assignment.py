"""Who serves whom: a full mesh while it is small, a bounded-degree graph beyond.

Pure and deterministic; integers inside, so that the same input gives the same links on every
machine. It moves as few links as possible: what is linked stays so unless a bound, a student
without a worker or a clear imbalance forces a change.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from edldist.coordinator.links.link_graph import LinkGraph

__all__ = ["StudentRank", "TeacherWorker", "assign"]

_WEIGHT_ONE = 64
_MAX_RATIO = 16


class TeacherWorker(NamedTuple):
    """A worker of ``group``; ``links`` are the students it serves now.

    ``capacity`` is relative to that of the group's other workers; NaN, where it is not known, counts as
    their mean. ``version`` is its teacher's, 0 where versions do not follow each other.
    """

    group: str
    capacity: float = 1.0
    links: Collection[str] = ()
    version: int = 0


class StudentRank(NamedTuple):
    """A student that wants labels of every one of ``groups``; ``hunger`` as ``capacity`` of a worker.

    ``job`` is its own among those that share workers by weights and priorities, the same of all students
    where none do. ``oldest`` are, by group, the oldest versions that it takes, where it does not take any.
    """

    groups: Collection[str]
    hunger: float = 1.0
    job: str = ""
    oldest: Mapping[str, int] = {}


def assign(
    teachers: Mapping[str, TeacherWorker],
    students: Mapping[str, StudentRank],
    max_students_per_worker: int = 16,
    *,
    balance: bool = True,
) -> dict[str, frozenset[str]]:
    """Give every teacher worker the students that it is to serve.

    A group whose students number at most ``max_students_per_worker`` gets a full mesh. Beyond,
    every worker serves exactly that many, every student has at least one worker, and students
    are served in proportion to their hunger: for equal weights their numbers of workers differ by
    two at most. With fewer than ``students / max_students_per_worker`` workers the bound rises
    to the least that serves everyone, since one unserved rank would stop all ranks of its job.

    Where several jobs share the workers, each worker serves as many of them as it may, and jobs have
    equally many workers: a worker parts what it gives by their weights and priorities itself
    (``teacher.service.shares``), so that each job gets its part of all workers as in a full mesh. What is
    left of the bound goes by hunger.

    Beyond the bound, a worker serves none who does not take its version. One whose version nobody takes
    serves nobody. Where no student takes any that is here, all are linked as if they did, and say why they
    refuse.

    Args:
        teachers: worker id -> its group, capacity and present links.
        students: student id -> the groups it wants and its hunger.
        max_students_per_worker: bound on links of one worker, at least 1.
        balance: whether links may move only to serve students more evenly.

    Returns:
        Worker id -> ids of its students, for every worker.

    Raises:
        ValueError: the bound is below 1.
    """
    if max_students_per_worker < 1:
        raise ValueError(f"max_students_per_worker={max_students_per_worker} is below 1")
    workers_of: dict[str, list[str]] = {}
    for worker_id in sorted(teachers):
        workers_of.setdefault(teachers[worker_id].group, []).append(worker_id)
    wanting: dict[str, list[str]] = {group: [] for group in workers_of}
    for student_id in sorted(students):
        for group in set(students[student_id].groups):
            if group in wanting:
                wanting[group].append(student_id)
    result: dict[str, frozenset[str]] = {}
    for group, worker_ids in workers_of.items():
        student_ids = wanting[group]
        if len(student_ids) <= max_students_per_worker:
            everyone = frozenset(student_ids)
            result.update((worker_id, everyone) for worker_id in worker_ids)
            continue
        result |= _bounded(
            group,
            {worker_id: teachers[worker_id] for worker_id in worker_ids},
            {student_id: students[student_id] for student_id in student_ids},
            max_students_per_worker,
            balance,
        )
    return result


def _bounded(
    group: str,
    teachers: Mapping[str, TeacherWorker],
    students: Mapping[str, StudentRank],
    most: int,
    balance: bool,
) -> dict[str, frozenset[str]]:
    """The links of one group of whose students each worker may serve some."""
    versions = [worker.version for worker in teachers.values()]
    taking = {i: s for i, s in students.items() if s.oldest.get(group, 0) <= max(versions)}
    students = taking or students
    oldest = [rank.oldest.get(group, 0) if taking else 0 for rank in students.values()]
    # Versions that are taken are nested, so that everybody can be served if each set of the pickiest can be.
    degree = most
    for version in {0, *oldest}:
        serving = sum(each >= version for each in versions)
        degree = max(degree, math.ceil(sum(each >= version for each in oldest) / serving))
    graph = LinkGraph(
        capacities=_weights(worker.capacity for worker in teachers.values()),
        hungers=_weights(rank.hunger for rank in students.values()),
        degree=degree,
        jobs=[rank.job for rank in students.values()],
        versions=versions,
        oldest=oldest,
    )
    ids = list(students)
    index = {student_id: s for s, student_id in enumerate(ids)}
    for w, worker in enumerate(teachers.values()):
        for student_id in sorted(set(worker.links)):
            if student_id in index and graph.takes(w, index[student_id]):
                graph.link(w, index[student_id])
    graph.solve(balance)
    return {worker_id: frozenset(ids[s] for s in graph.served[w]) for w, worker_id in enumerate(teachers)}


def _weights(values: Iterable[float]) -> list[int]:
    """Relative weights as integers around ``_WEIGHT_ONE``; nonsense counts as the mean."""
    raw = [v if math.isfinite(v) and v > 0 else None for v in values]
    sane = [v for v in raw if v is not None]
    mean = sum(sane) / len(sane) if sane else 1.0
    return [
        _WEIGHT_ONE if v is None else round(_WEIGHT_ONE * min(max(v / mean, 1 / _MAX_RATIO), _MAX_RATIO))
        for v in raw
    ]
