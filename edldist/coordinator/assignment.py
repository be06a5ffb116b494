"""Who serves whom: a full mesh while it is small, a bounded-degree graph beyond.

Pure and deterministic; integers inside, so that the same input gives the same links on every
machine. It moves as few links as possible: what is linked stays so unless a bound, a student
without a worker or a clear imbalance forces a change.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

__all__ = ["StudentRank", "TeacherWorker", "assign"]

_WEIGHT_ONE = 64
_MAX_RATIO = 16
_LEVEL_ONE = 1024
"""Level of a student of mean hunger that one worker of mean capacity serves."""


class TeacherWorker(NamedTuple):
    """A worker of ``group``; ``links`` are the students it serves now.

    ``capacity`` is relative to that of the group's other workers; NaN, where it is not known, counts as
    their mean.
    """

    group: str
    capacity: float = 1.0
    links: Collection[str] = ()


class StudentRank(NamedTuple):
    """A student that wants labels of every one of ``groups``; ``hunger`` as ``capacity`` of a worker."""

    groups: Collection[str]
    hunger: float = 1.0


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
        degree = max(max_students_per_worker, math.ceil(len(student_ids) / len(worker_ids)))
        graph = _Graph(
            capacities=_weights(teachers[w].capacity for w in worker_ids),
            hungers=_weights(students[s].hunger for s in student_ids),
            degree=degree,
        )
        index = {student_id: s for s, student_id in enumerate(student_ids)}
        for w, worker_id in enumerate(worker_ids):
            for student_id in sorted(set(teachers[worker_id].links)):
                if student_id in index:
                    graph.link(w, index[student_id])
        graph.solve(balance)
        for w, worker_id in enumerate(worker_ids):
            result[worker_id] = frozenset(student_ids[s] for s in graph.served[w])
    return result


def _weights(values: Iterable[float]) -> list[int]:
    """Relative weights as integers around ``_WEIGHT_ONE``; nonsense counts as the mean."""
    raw = [v if math.isfinite(v) and v > 0 else None for v in values]
    sane = [v for v in raw if v is not None]
    mean = sum(sane) / len(sane) if sane else 1.0
    low, high = _WEIGHT_ONE // _MAX_RATIO, _WEIGHT_ONE * _MAX_RATIO
    return [
        _WEIGHT_ONE if v is None else round(_WEIGHT_ONE * min(max(v / mean, low / 64), high / 64))
        for v in raw
    ]


class _Graph:
    """The links of one group, by index of worker and student, on the way to a good assignment."""

    def __init__(self, capacities: list[int], hungers: list[int], degree: int) -> None:
        self._capacities = capacities
        self._uniform = len(set(capacities)) == 1
        self._hungers = hungers
        self._degree = degree
        # Invariant: a student is in a worker's served if and only if the worker is in its servers; _supply is
        # the sum of its servers' capacities, and _level that over its hunger.
        self.served: list[set[int]] = [set() for _ in capacities]
        self._servers: list[set[int]] = [set() for _ in hungers]
        self._supply = [0] * len(hungers)
        self._level = [0] * len(hungers)

    def link(self, w: int, s: int) -> None:
        self.served[w].add(s)
        self._servers[s].add(w)
        self._supplied(s, self._capacities[w])

    def _unlink(self, w: int, s: int) -> None:
        self.served[w].remove(s)
        self._servers[s].remove(w)
        self._supplied(s, -self._capacities[w])

    def _supplied(self, s: int, capacity: int) -> None:
        self._supply[s] += capacity
        self._level[s] = self._supply[s] * _LEVEL_ONE // self._hungers[s]

    def validate(self) -> None:
        """Check what holds between any two steps, for tests."""
        for w, served in enumerate(self.served):
            assert all(w in self._servers[s] for s in served), f"worker {w} serves who does not know it"
        for s, servers in enumerate(self._servers):
            assert all(s in self.served[w] for w in servers), f"student {s} knows who does not serve it"
            supply = sum(self._capacities[w] for w in servers)
            assert self._supply[s] == supply, f"student {s}: {self._supply[s]} is not the sum {supply}"
            assert self._level[s] == supply * _LEVEL_ONE // self._hungers[s]

    def solve(self, balance: bool) -> None:
        self._trim()
        self._fill()
        self._cover()
        while balance and self._balance():
            pass

    def _trim(self) -> None:
        """Take from overfull workers the students that are served best."""
        for w, served in enumerate(self.served):
            surplus = len(served) - self._degree
            if surplus > 0:
                richest = sorted(sorted(served), key=self._level.__getitem__, reverse=True)
                for s in richest[:surplus]:
                    self._unlink(w, s)

    def _fill(self) -> None:
        """Give workers with room the students that are served worst.

        Ties are broken at random (with a fixed seed), so that the graph mixes: with runs of
        neighbours it would fall into islands that cannot help each other.
        """
        rng = random.Random(0)
        order = list(range(len(self._hungers)))
        room = [w for w, served in enumerate(self.served) if len(served) < self._degree]
        for w in sorted(room, key=lambda w: -self._capacities[w]):
            rng.shuffle(order)
            served = self.served[w]
            poorest = sorted((s for s in order if s not in served), key=self._level.__getitem__)
            for s in poorest[: self._degree - len(served)]:
                self.link(w, s)

    def _cover(self) -> None:
        """Give every student without a worker one of a student that has several."""
        # All workers are full here, so links >= students, and an unserved student implies a donor.
        for s, servers in enumerate(self._servers):
            if not servers:
                donors = (d for d, others in enumerate(self._servers) if len(others) > 1)
                donor = max(donors, key=self._level.__getitem__)
                w = min(self._servers[donor])
                self._unlink(w, donor)
                self.link(w, s)

    def _balance(self) -> bool:
        """Move links from the best to the worst served while it clearly helps; False if none moved.

        A move must leave the receiver at least one level below the giver's old one. That margin
        is the hysteresis that keeps links still; and as every move lowers the higher of two
        levels, moving ends.
        """
        level = self._level
        low = [(level[s], s) for s in range(len(level))]
        high = [(-level[s], s) for s in range(len(level))]
        heapq.heapify(low)
        heapq.heapify(high)
        moved = False
        while high and low:
            if -high[0][0] != level[high[0][1]]:
                heapq.heappop(high)
                continue
            if low[0][0] != level[low[0][1]]:
                heapq.heappop(low)
                continue
            rich, poor = high[0][1], low[0][1]
            if level[rich] - level[poor] <= _LEVEL_ONE:
                break
            w = self._movable(rich, poor)
            if w is None:
                heapq.heappop(high)
                continue
            self._unlink(w, rich)
            self.link(w, poor)
            moved = True
            for s in (rich, poor):
                heapq.heappush(low, (level[s], s))
                heapq.heappush(high, (-level[s], s))
        return moved

    def _movable(self, rich: int, poor: int) -> int | None:
        """The strongest worker of ``rich`` whose move to ``poor`` helps."""
        if len(self._servers[rich]) < 2:
            return None
        candidates = self._servers[rich] - self._servers[poor]
        if self._uniform:
            candidates = {min(candidates)} if candidates else candidates  # all are as good: be quick
        best = None
        for w in sorted(candidates):
            gained = (self._supply[poor] + self._capacities[w]) * _LEVEL_ONE // self._hungers[poor]
            helps = gained + _LEVEL_ONE < self._level[rich]
            if helps and (best is None or self._capacities[w] > self._capacities[best]):
                best = w
        return best
