"""A task in a worker's hands, from the frames that it came in to its answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from edldist.labels.grammar import CodecSpec
from edldist.teacher.passage import Passage
from edldist.wire.messages import Result, TensorSpec

__all__ = ["Answer", "HeldTask", "Level", "Outcome", "TaskInputs"]


@dataclass(frozen=True, slots=True, eq=False)
class TaskInputs:
    """The inputs of tasks that arrived together, still raw: their rows back to back in each frame.

    ``passage``: times the first of them that a pass takes; None where it is not timed. ``codec``: in which
    labels are asked for; None for the worker's own.
    """

    rows: int
    tensors: list[TensorSpec]
    frames: list[memoryview] = field(repr=False)
    passage: Passage | None = field(default=None, repr=False)
    codec: CodecSpec | None = None

    def fits(self, other: TaskInputs) -> bool:
        """Whether both can be one batch: same names, dtypes and shapes of a row, and labels of one codec."""
        return self is other or (
            self.codec == other.codec
            and len(self.tensors) == len(other.tensors)
            and all(
                mine.name == its.name and mine.dtype == its.dtype and mine.shape[1:] == its.shape[1:]
                for mine, its in zip(self.tensors, other.tensors, strict=True)
            )
        )


@dataclass(frozen=True, slots=True, eq=False)
class HeldTask:
    """A leased task in this worker's hands.

    Attributes:
        rows: of its inputs from ``start`` on: one for each of its ``samples``, unless these have lengths.
            They are what it costs: of the room that was asked for, and of a full pass.
        own_pass: it must have a pass without other tasks.
        asked: rows of labels that answer it, if not as many.
        compared: its answer is what workers are compared by; it has a pass of its own.
    """

    student: str
    lease: int
    samples: int
    rows: int
    own_pass: bool
    inputs: TaskInputs
    start: int
    asked: int | None = None
    compared: bool = False

    @property
    def labels(self) -> int:
        """Rows of labels that answer it."""
        return self.rows if self.asked is None else self.asked

    @property
    def codec(self) -> CodecSpec | None:
        """In which its labels are to travel; None for the worker's own, as of what is compared."""
        return self.inputs.codec

    @property
    def nbytes(self) -> int:
        """Bytes of its inputs."""
        return sum([frame.nbytes for frame in self.inputs.frames]) * self.rows // max(1, self.inputs.rows)


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of some tasks of one student: labels, an error, or neither: they go back without blame.

    ``final``: each attempt would end with that error, of whatever samples; ``certain``: each at these would.
    """

    tasks: list[HeldTask]
    result: Result | None
    frames: Sequence[memoryview] = ()
    error: str = ""
    final: bool = False
    certain: bool = False


class Outcome(NamedTuple):
    """What became of a pass: answers to all of its tasks, and the way of one of them if it was timed."""

    answers: list[Answer]
    passage: Passage | None = None


class Level(NamedTuple):
    """How much waits somewhere: rows, and their bytes."""

    rows: int
    nbytes: int

    @classmethod
    def of(cls, tasks: Iterable[HeldTask]) -> Level:
        """Of inputs of tasks; those of one message follow each other."""
        rows, nbytes, last, row_bytes = 0, 0.0, None, 0.0
        for task in tasks:
            if task.inputs is not last:
                last = task.inputs
                row_bytes = sum([frame.nbytes for frame in last.frames]) / max(1, last.rows)
            rows += task.rows
            nbytes += task.rows * row_bytes
        return cls(rows, round(nbytes))
