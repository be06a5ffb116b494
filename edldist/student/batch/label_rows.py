"""Labels as they came, and the buffers of a batch in which they belong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edldist.errors import LabelError, LabelMemoryError, WireError
from edldist.student.batch.teacher_inputs import Layout
from edldist.student.memory.to_device import Allocate
from edldist.wire.messages import TensorSpec
from edldist.wire.tensors import as_bytes, as_rows, as_tensor, check
from edldist.wire.transport import Buffer, Frames

__all__ = ["LabelRows", "TeacherLabels"]

_KEPT_FROM_BYTES = 64 << 10  # a small frame may hold on to a larger buffer that it shares with others


class _Buffer:
    """One label tensor of a batch, and its memory by rows; None if it came whole."""

    __slots__ = ("memory", "spec", "tensor")

    def __init__(self, spec: TensorSpec, tensor: Tensor, memory: NDArray[np.uint8] | None) -> None:
        self.spec = spec
        self.tensor = tensor
        self.memory = memory

    @classmethod
    def empty(cls, spec: TensorSpec, dtype: torch.dtype, rows: int, allocate: Allocate) -> _Buffer:
        shape = [rows, *spec.shape[1:]]
        try:
            tensor = allocate(shape, dtype)
        except (RuntimeError, MemoryError) as exc:
            nbytes, why = math.prod(shape) * dtype.itemsize, str(exc) or type(exc).__name__
            raise LabelMemoryError(
                f"no buffer of {nbytes:,} bytes can be made for output {spec.name!r}, {spec.dtype}{shape}: "
                + why.splitlines()[0]
            ) from exc
        return cls(spec, tensor, as_rows(tensor, rows))

    @classmethod
    def of_frame(cls, spec: TensorSpec, dtype: torch.dtype, frame: Buffer) -> _Buffer:
        return cls(spec, as_tensor(memoryview(frame), dtype).reshape(spec.shape), None)


class TeacherLabels:
    """The buffers of one teacher's labels of a batch.

    Args:
        teacher: its name.
        came: the first labels that came, which say what there is.
        rows: how many the batch has.
        allocate: makes the buffers.
        keep_frames: whether large frames of ``came`` become the buffers: they hold all rows, and are ours.

    Raises:
        LabelError: the outputs have no names, or one name twice.
        LabelMemoryError: there is no memory.
    """

    __slots__ = ("buffers", "layout", "nbytes", "teacher")

    def __init__(
        self, teacher: str, came: LabelRows, rows: int, allocate: Allocate, keep_frames: bool
    ) -> None:
        names = [spec.name for spec in came.specs]
        if not names or len(set(names)) != len(names):
            raise LabelError(f"teacher {teacher!r} sent outputs {names}")
        self.teacher = teacher
        self.layout = came.layout
        self.buffers = [
            _Buffer.of_frame(spec, dtype, frame)
            if keep_frames and memoryview(frame).nbytes >= _KEPT_FROM_BYTES
            else _Buffer.empty(spec, dtype, rows, allocate)
            for spec, dtype, frame in zip(came.specs, came.dtypes, came.frames, strict=True)
        ]
        self.nbytes = sum([buffer.tensor.nbytes for buffer in self.buffers])

    def write(self, first: int, stop: int, came: LabelRows, at: int) -> None:
        """Copy rows that came, from ``at`` on, to rows ``first`` to ``stop``.

        Raises:
            LabelError: they are not like those that came before. Nothing is written then.
        """
        for index, buffer in zip(self._order_of(came), self.buffers, strict=True):
            if buffer.memory is not None:
                buffer.memory[first:stop] = came.memory[index][at : at + stop - first]

    def rows(self, first: int, stop: int) -> LabelRows:
        """Some rows that were written, as they came."""
        tensors = [(buffer.spec, buffer.tensor[first:stop]) for buffer in self.buffers]
        specs = [TensorSpec(spec.name, spec.dtype, [stop - first, *spec.shape[1:]]) for spec, _ in tensors]
        return LabelRows(specs, [as_bytes(tensor) for _, tensor in tensors], stop - first)

    def _order_of(self, rows: LabelRows) -> Sequence[int]:
        """Where the tensor of each buffer is among those that came: a worker may name them in another order.

        Raises:
            LabelError: they are not like those that came before.
        """
        if rows.layout == self.layout:
            return range(len(self.buffers))
        if sorted(rows.layout) != sorted(self.layout):
            self._refuse(rows)
        return [rows.layout.index(tensor) for tensor in self.layout]

    def _refuse(self, rows: LabelRows) -> NoReturn:
        """Say how the labels of a task differ from those that came before."""
        first = {buffer.spec.name: buffer.spec for buffer in self.buffers}
        names = sorted(spec.name for spec in rows.specs)
        if names != sorted(first):
            raise LabelError(
                f"teacher {self.teacher!r} sent outputs {names} for one task of a batch "
                f"and {sorted(first)} for another"
            )
        for spec in rows.specs:
            known = first[spec.name]
            if spec.dtype != known.dtype or spec.shape[1:] != known.shape[1:]:
                raise LabelError(
                    f"output {spec.name!r} of teacher {self.teacher!r} is {spec.dtype}{spec.shape} for one "
                    f"task of a batch and {known.dtype}{known.shape} for another: the samples of a batch "
                    "need one shape"
                )
        raise LabelError(f"teacher {self.teacher!r} sent an output twice: {names}")


class LabelRows:
    """The labels of one forward pass as they came, checked once: rows that may be of several tasks.

    Args:
        specs, frames: the tensors of the message.
        rows: how many each of them must have.
        own_memory: whether a batch that they label from end to end may keep the frames.

    Raises:
        LabelError: counts, names, dtypes or sizes do not fit.
    """

    __slots__ = ("_memory", "dtypes", "frames", "layout", "own_memory", "rows", "specs")

    def __init__(
        self, specs: Sequence[TensorSpec], frames: Frames, rows: int, own_memory: bool = False
    ) -> None:
        if len(frames) != len(specs):
            raise LabelError(f"{len(specs)} label tensors announced, {len(frames)} frames came")
        if rows < 1:
            raise LabelError("labels of no samples came")
        self.specs = specs
        self.frames = frames
        self.rows = rows
        self.own_memory = own_memory
        self.dtypes = [_checked(spec, frame, rows) for spec, frame in zip(specs, frames, strict=True)]
        self.layout = _layout(specs)
        self._memory: list[NDArray[np.uint8]] = []

    @property
    def memory(self) -> list[NDArray[np.uint8]]:
        """The bytes of each tensor by rows."""
        if not self._memory:
            self._memory = [np.frombuffer(frame, np.uint8).reshape(self.rows, -1) for frame in self.frames]
        return self._memory


def _checked(spec: TensorSpec, frame: Buffer, rows: int) -> torch.dtype:
    try:
        dtype = check(spec, frame)
    except WireError as exc:
        raise LabelError(str(exc)) from exc
    if not spec.shape or spec.shape[0] != rows:
        raise LabelError(
            f"output {spec.name!r} has shape {spec.shape} for {rows} samples; "
            "its first dimension must be the samples"
        )
    return dtype


def _layout(specs: Sequence[TensorSpec]) -> Layout:
    return tuple([(spec.name, spec.dtype, tuple(spec.shape[1:])) for spec in specs])
