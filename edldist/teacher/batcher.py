"""Which held tasks share a forward pass. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from edldist.wire.messages import TensorSpec

__all__ = ["Batcher", "HeldTask", "TaskInputs"]


@dataclass(frozen=True, slots=True, eq=False)
class TaskInputs:
    """The inputs of tasks that arrived together, still raw: their rows back to back in each frame."""

    samples: int
    tensors: list[TensorSpec]
    frames: list[memoryview] = field(repr=False)

    def fits(self, other: TaskInputs) -> bool:
        """Whether both can be one batch: same names, dtypes and shapes but for the samples."""
        return self is other or (
            len(self.tensors) == len(other.tensors)
            and all(
                mine.name == its.name and mine.dtype == its.dtype and mine.shape[1:] == its.shape[1:]
                for mine, its in zip(self.tensors, other.tensors, strict=True)
            )
        )


@dataclass(frozen=True, slots=True, eq=False)
class HeldTask:
    """A leased task in this worker's hands: ``samples`` rows of its inputs from ``start`` on."""

    student: str
    lease: int
    samples: int
    alone: bool
    inputs: TaskInputs
    start: int


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

    def add(self, task: HeldTask) -> None:
        self._tasks.append(task)

    def take(self) -> list[HeldTask]:
        """The tasks of the next forward pass, at least one if any is held."""
        if not self._tasks:
            return []
        taken = [self._tasks.popleft()]
        first = taken[0]
        samples = first.samples
        if first.alone:
            return taken
        later: deque[HeldTask] = deque()
        while self._tasks:
            task = self._tasks.popleft()
            if (
                not task.alone
                and samples + task.samples <= self.batch_size
                and first.inputs.fits(task.inputs)
            ):
                taken.append(task)
                samples += task.samples
            else:
                later.append(task)
        self._tasks = later
        return taken

    def withdraw(self, student: str | None = None) -> list[HeldTask]:
        """Take out everything that has not begun, of one student or of all."""
        out = [task for task in self._tasks if student in (None, task.student)]
        self._tasks = deque(task for task in self._tasks if student not in (None, task.student))
        return out
