"""The tasks of one teacher that nobody has leased: fresh cuts, and those that came back. Pure."""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable, Iterator

from edldist.student.queue.flow import Flow
from edldist.student.queue.task import Task

__all__ = ["Track"]


class Track:
    """What a teacher's workers may be given, in the order of the batches; what came back goes first.

    Args:
        teacher: its name.
        flow: how batches are cut.
        waits: called with a batch's number and +1 or -1 for each of its pieces that begins or ends
            to wait here: its uncut rest, and every task that came back.
    """

    def __init__(self, teacher: str, flow: Flow, waits: Callable[[int, int], None]) -> None:
        self._teacher = teacher
        self._flow = flow
        self._waits = waits
        self._fresh: deque[list[int]] = deque()  # [batch, next start, samples]
        self._returned: list[Task] = []  # ordered by place
        # Invariant: the samples of all that waits here.
        self._samples = 0
        self.draining: str | None = None  # the worker that is being emptied for a task that must be alone

    def offer(self, batch: int, samples: int) -> None:
        """A batch that is not cut yet, behind all others."""
        self._fresh.append([batch, 0, samples])
        self._samples += samples
        self._waits(batch, 1)

    def put_back(self, task: Task) -> None:
        """A task whose lease ended without labels: to the front, in its place."""
        bisect.insort(self._returned, task, key=lambda other: other.place)
        task.waiting = True
        self._samples += task.samples
        self._waits(task.batch, 1)

    def __iter__(self) -> Iterator[Task]:
        """The tasks that came back."""
        return iter(self._returned)

    def remove(self, task: Task) -> None:
        self._returned.remove(task)
        task.waiting = False
        self._samples -= task.samples
        self._waits(task.batch, -1)

    def forget(self, batch: int) -> None:
        """Drop all that waits of a batch."""
        for entry in [entry for entry in self._fresh if entry[0] == batch]:
            self._fresh.remove(entry)
            self._samples -= entry[2] - entry[1]
            self._waits(batch, -1)
        for task in [task for task in self._returned if task.batch == batch]:
            self.remove(task)

    def clear(self) -> None:
        """Drop all, without calling ``waits``."""
        self._fresh.clear()
        self._returned.clear()
        self._samples = 0
        self.draining = None

    @property
    def samples(self) -> int:
        """How many samples wait here."""
        return self._samples

    @property
    def next_samples(self) -> int:
        """What whoever comes next gets at least, because cuts are fixed; 1 where they are not."""
        if not self._flow.cuts_fixed:
            return 1
        if self._returned:
            return self._returned[0].samples
        return self._next_cut() if self._fresh else 1

    def next_alone(self) -> Task | None:
        """The first task that must be leased alone."""
        return next((task for task in self._returned if task.alone), None)

    def has_work(self, suits: Callable[[Task], bool]) -> bool:
        return bool(self._fresh) or any(not task.alone and suits(task) for task in self._returned)

    def take(self, room: int, first: bool, suits: Callable[[Task], bool]) -> Task | None:
        """The next task of at most ``room`` samples.

        Args:
            first: whether a fixed cut that is larger may be given all the same.
            suits: whether a task that came back may go to the worker that asks.
        """
        fixed = self._flow.cuts_fixed
        for task in self._returned:
            if task.alone or not suits(task):
                continue
            if task.samples <= room or (first and fixed):
                self.remove(task)
                return task
            if fixed:
                return None
            rest = task.split(room)
            self._returned[self._returned.index(task)] = rest
            task.waiting, rest.waiting = False, True
            self._samples -= task.samples
            return task
        return self._cut(room, first) if self._fresh else None

    def _cut(self, room: int, first: bool) -> Task | None:
        head = self._fresh[0]
        batch, start, samples = head
        size = self._next_cut()
        if not self._flow.cuts_fixed:
            size = min(size, room)
        elif size > room and not first:
            return None
        head[1] = start + size
        self._samples -= size
        if head[1] == samples:
            self._fresh.popleft()
            self._waits(batch, -1)
        return Task(self._teacher, batch, start, start + size)

    def _next_cut(self) -> int:
        """Samples of the next fresh cut, for a worker that takes any number of them."""
        _, start, samples = self._fresh[0]
        size = samples - start
        return size if self._flow.task_size is None else min(size, self._flow.task_size)
