"""A task in a worker's hands, from the frames that it came in to its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edldist.wire.messages import Result, TensorSpec

__all__ = ["Answer", "HeldTask", "TaskInputs"]


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


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of some tasks of one student: labels, an error, or neither: they go back without blame."""

    tasks: list[HeldTask]
    result: Result | None
    frames: Sequence[memoryview] = ()
    error: str = ""
