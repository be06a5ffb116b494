"""Which held tasks share a forward pass. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from edldist.teacher.tasks import HeldTask

__all__ = ["Batcher"]


class Batcher:
    """Held tasks in order of arrival, merged up to the batch size.

    Nothing waits to be merged: a pass takes what is there. A task that is larger than the batch
    size (fixed cuts) runs by itself. Not thread-safe; the worker's service guards it.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._tasks: deque[HeldTask] = deque()

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[HeldTask]:
        """The tasks in their order."""
        return iter(self._tasks)

    def add(self, task: HeldTask) -> None:
        self._tasks.append(task)

    def take(self) -> list[HeldTask]:
        """The tasks of the next forward pass, at least one if any is held."""
        if not self._tasks:
            return []
        taken = [self._tasks.popleft()]
        first = taken[0]
        rows = first.rows
        if first.own_pass or first.compared:
            return taken
        later: deque[HeldTask] = deque()
        while self._tasks:
            task = self._tasks.popleft()
            apart = task.own_pass or task.compared
            if not apart and rows + task.rows <= self.batch_size and first.inputs.fits(task.inputs):
                taken.append(task)
                rows += task.rows
            else:
                later.append(task)
        self._tasks = later
        return taken

    def withdraw(self, student: str | None = None) -> list[HeldTask]:
        """Take out everything that has not begun, of one student or of all."""
        out = [task for task in self._tasks if student in (None, task.student)]
        self._tasks = deque(task for task in self._tasks if student not in (None, task.student))
        return out
