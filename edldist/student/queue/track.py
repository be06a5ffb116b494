"""The tasks of one teacher that nobody has leased: fresh cuts, and those that came back. Pure."""

from __future__ import annotations

import bisect
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edldist.student.queue.flow import Flow
from edldist.student.queue.task import Task
from edldist.student.queue.wanted import Wanted

__all__ = ["Track"]


@dataclass(slots=True, eq=False)
class _Run:
    """Samples ``start`` to ``stop`` of a batch that are not cut yet."""

    batch: int
    start: int
    stop: int
    wanted: Wanted


class Track:
    """What a teacher's workers may be given, in the order of the batches; what came back goes first.

    Room and cost are counted in the units in which workers pull (see ``Wanted``).

    Args:
        teacher: its name.
        flow: how batches are cut.
        waits: called with a batch's number and +1 or -1 for each of its pieces that begins or ends
            to wait here: every uncut run of samples, and every task that came back.
    """

    def __init__(self, teacher: str, flow: Flow, waits: Callable[[int, int], None]) -> None:
        self.teacher = teacher
        self._task_size = flow.task_size
        self._cuts_fixed = flow.cuts_fixed
        self._waits = waits
        # Invariant: runs are not empty, and in the order of their batches.
        self._fresh: deque[_Run] = deque()
        # Invariant: ordered by place; exactly these tasks of the teacher are ``waiting``.
        self._returned: list[Task] = []
        # Invariant: the cost of all that waits here.
        self._cost = 0
        self.draining: str | None = None  # the worker that is being emptied for a task that must be alone

    def offer(self, batch: int, wanted: Wanted) -> None:
        """Samples of a batch that are not cut yet, behind all others."""
        for start, stop in wanted.runs:
            self._fresh.append(_Run(batch, start, stop, wanted))
            self._cost += wanted.cost(start, stop)
            self._waits(batch, 1)

    def offer_again(self, batch: int, wanted: Wanted) -> None:
        """Samples of a batch, none of which waits, are to be labelled after all, in its place."""
        runs = [_Run(batch, start, stop, wanted) for start, stop in wanted.runs]
        at = bisect.bisect([run.batch for run in self._fresh], batch)
        self._fresh.rotate(-at)
        self._fresh.extendleft(reversed(runs))
        self._fresh.rotate(at)
        for run in runs:
            self._cost += wanted.cost(run.start, run.stop)
            self._waits(batch, 1)

    def keep_only(self, batch: int, wanted: Wanted) -> None:
        """Of what is not cut yet of a batch, no more than this is to be labelled."""
        for run in [run for run in self._fresh if run.batch == batch]:
            self._drop(run)
        self.offer_again(batch, wanted)

    def put_back(self, task: Task) -> None:
        """A task whose lease ended without labels: to the front, in its place."""
        bisect.insort(self._returned, task, key=lambda other: other.place)
        task.waiting = True
        self._cost += task.cost
        self._waits(task.batch, 1)

    def __iter__(self) -> Iterator[Task]:
        """The tasks that came back."""
        return iter(self._returned)

    def remove(self, task: Task) -> None:
        self._returned.remove(task)
        task.waiting = False
        self._cost -= task.cost
        self._waits(task.batch, -1)

    def waiting(self, batch: int) -> int:
        """How many samples of a batch wait."""
        fresh = sum(run.stop - run.start for run in self._fresh if run.batch == batch)
        return fresh + sum(task.samples for task in self._returned if task.batch == batch)

    def forget(self, batch: int) -> None:
        """Drop all that waits of a batch."""
        for run in [run for run in self._fresh if run.batch == batch]:
            self._drop(run)
        for task in [task for task in self._returned if task.batch == batch]:
            self.remove(task)

    def _drop(self, run: _Run) -> None:
        self._fresh.remove(run)
        self._cost -= run.wanted.cost(run.start, run.stop)
        self._waits(run.batch, -1)

    def clear(self) -> None:
        """Drop all, without calling ``waits``."""
        self._fresh.clear()
        self._returned.clear()
        self._cost = 0
        self.draining = None

    @property
    def cost(self) -> int:
        """What all that waits here costs."""
        return self._cost

    @property
    def least_cost(self) -> int:
        """What whoever comes next gets at least of what waits: a cut, where cuts are fixed, and else 1."""
        if not self._cuts_fixed:
            return 1
        if self._returned:
            return self._returned[0].cost
        head = self._fresh[0]
        return head.wanted.cost(head.start, self._fixed_stop(head))

    def next_alone(self) -> Task | None:
        """The first task that must be leased alone."""
        return next((task for task in self._returned if task.alone), None)

    def has_work(self, suits: Callable[[Task], bool]) -> bool:
        return bool(self._fresh) or any(not task.alone and suits(task) for task in self._returned)

    def take(self, room: int, first: bool, suits: Callable[[Task], bool]) -> Task | None:
        """The next task that costs ``room`` at most.

        Args:
            first: whether a fixed cut, or a single sample, that costs more may be given all the same.
            suits: whether a task that came back may go to the worker that asks.
        """
        fixed = self._cuts_fixed
        for task in self._returned:
            if task.alone or not suits(task):
                continue
            if task.cost <= room or (first and (fixed or task.samples == 1)):
                self.remove(task)
                return task
            stop = task.wanted.fitting(task.start, task.stop, room)
            if fixed or (stop == task.start and not first):
                return None
            rest = task.split(max(stop, task.start + 1))
            self._returned[self._returned.index(task)] = rest
            task.waiting, rest.waiting = False, True
            self._cost -= task.cost
            return task
        return self._cut(room, first) if self._fresh else None

    def _cut(self, room: int, first: bool) -> Task | None:
        head = self._fresh[0]
        start, stop = head.start, self._fixed_stop(head)
        if not self._cuts_fixed:
            stop = head.wanted.fitting(start, stop, room)
            if stop == start:
                if not first:
                    return None
                stop = start + 1
        elif not first and head.wanted.cost(start, stop) > room:
            return None
        head.start = stop
        self._cost -= head.wanted.cost(start, stop)
        if stop == head.stop:
            self._fresh.popleft()
            self._waits(head.batch, -1)
        return Task(self.teacher, head.batch, start, stop, head.wanted)

    def _fixed_stop(self, run: _Run) -> int:
        """Where the next cut of a run ends, for a worker that takes any number of samples."""
        size = self._task_size
        return run.stop if size is None else min(run.stop, run.start + size - run.start % size)

    def pieces(self) -> Counter[int]:
        """How many pieces of each batch wait here."""
        return Counter([run.batch for run in self._fresh] + [task.batch for task in self._returned])

    def uncut_of(self, batch: int) -> list[tuple[int, int]]:
        """The samples of a batch that are not cut yet: ``start`` and ``stop`` of each piece."""
        return sorted((run.start, run.stop) for run in self._fresh if run.batch == batch)

    def uncut(self) -> Counter[int]:
        """How many samples of each batch are not cut yet."""
        samples: Counter[int] = Counter()
        for run in self._fresh:
            samples[run.batch] += run.stop - run.start
        return samples

    def validate(self) -> None:
        """Check the invariants."""
        assert all(run.start < run.stop for run in self._fresh)
        assert [run.batch for run in self._fresh] == sorted(run.batch for run in self._fresh)
        places = [task.place for task in self._returned]
        assert places == sorted(set(places))
        assert all(task.waiting and task.teacher == self.teacher for task in self._returned)
        runs = sum(run.wanted.cost(run.start, run.stop) for run in self._fresh)
        assert self._cost == runs + sum(task.cost for task in self._returned)
