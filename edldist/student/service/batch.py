"""A batch on its way: its inputs as sliceable bytes, its labels in one buffer per output.

Inputs are cut as views; labels are written where they belong, once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edldist.errors import LabelError, LabelMemoryError, PoisonTaskError, WireError
from edldist.student.service.held_bytes import held_bytes
from edldist.student.to_device import Allocate
from edldist.wire.messages import TensorSpec
from edldist.wire.shm.lending import lend
from edldist.wire.tensors import as_bytes, as_tensor, check, dtype_name
from edldist.wire.transport import Buffer, Frames, Piece

__all__ = ["LabelRows", "Layout", "OpenBatch"]

_KEPT_FROM_BYTES = 64 << 10  # a small frame may hold on to a larger buffer that it shares with others

Layout = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Names, dtypes and shapes of one sample in each tensor."""


class _Rows:
    """One input tensor, sliceable by samples without a copy."""

    __slots__ = ("copied", "dtype", "lent", "memory", "name", "row_bytes", "shape")

    def __init__(self, name: str, tensor: Tensor, samples: int) -> None:
        self.name = name
        self.dtype = dtype_name(tensor.dtype)
        self.memory = as_bytes(tensor)
        self.copied = not (tensor.is_cpu and tensor.is_contiguous() and not tensor.is_neg())
        self.lent = lend(tensor)  # what a data loader's worker made needs no copy for a worker on this host
        self.shape = tuple(tensor.shape[1:])
        self.row_bytes = self.memory.nbytes // samples if samples else 0

    def cut(self, start: int, stop: int) -> memoryview | Piece:
        first = start * self.row_bytes
        memory = self.memory[first : stop * self.row_bytes]
        if self.lent is None:
            return memory
        return Piece(memory, self.lent.address, self.lent.offset + first)


class _Buffer:
    """One label tensor of a batch, and its memory by samples; None if it came whole."""

    __slots__ = ("memory", "spec", "tensor")

    def __init__(self, spec: TensorSpec, tensor: Tensor, memory: NDArray[np.uint8] | None) -> None:
        self.spec = spec
        self.tensor = tensor
        self.memory = memory

    @classmethod
    def empty(cls, spec: TensorSpec, dtype: torch.dtype, samples: int, allocate: Allocate) -> _Buffer:
        shape = [samples, *spec.shape[1:]]
        try:
            tensor = allocate(shape, dtype)
        except (RuntimeError, MemoryError) as exc:
            nbytes, why = math.prod(shape) * dtype.itemsize, str(exc) or type(exc).__name__
            raise LabelMemoryError(
                f"no buffer of {nbytes:,} bytes can be made for output {spec.name!r}, {spec.dtype}{shape}: "
                + why.splitlines()[0]
            ) from exc
        return cls(spec, tensor, tensor.reshape(-1).view(torch.uint8).numpy().reshape(samples, -1))

    @classmethod
    def of_frame(cls, spec: TensorSpec, dtype: torch.dtype, frame: Buffer) -> _Buffer:
        return cls(spec, as_tensor(memoryview(frame), dtype).reshape(spec.shape), None)


def _pageable(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(tuple(shape), dtype=dtype, device="cpu")


class TeacherLabels:
    """The buffers of one teacher's labels of a batch."""

    __slots__ = ("buffers", "layout", "teacher")

    def __init__(
        self, teacher: str, rows: LabelRows, samples: int, allocate: Allocate, keep_frames: bool
    ) -> None:
        names = [spec.name for spec in rows.specs]
        if not names or len(set(names)) != len(names):
            raise LabelError(f"teacher {teacher!r} sent outputs {names}")
        self.teacher = teacher
        self.layout = rows.layout
        self.buffers = [
            _Buffer.of_frame(spec, dtype, frame)
            if keep_frames and memoryview(frame).nbytes >= _KEPT_FROM_BYTES
            else _Buffer.empty(spec, dtype, samples, allocate)
            for spec, dtype, frame in zip(rows.specs, rows.dtypes, rows.frames, strict=True)
        ]

    def order_of(self, rows: LabelRows) -> Sequence[int]:
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
        samples: rows that each of them must have.
        own_memory: whether a batch that they label from end to end may keep the frames.

    Raises:
        LabelError: counts, names, dtypes or sizes do not fit.
    """

    __slots__ = ("_memory", "dtypes", "frames", "layout", "own_memory", "samples", "specs")

    def __init__(
        self, specs: Sequence[TensorSpec], frames: Frames, samples: int, own_memory: bool = False
    ) -> None:
        if len(frames) != len(specs):
            raise LabelError(f"{len(specs)} label tensors announced, {len(frames)} frames came")
        if samples < 1:
            raise LabelError("labels of no samples came")
        self.specs = specs
        self.frames = frames
        self.samples = samples
        self.own_memory = own_memory
        self.dtypes = [_checked(spec, frame, samples) for spec, frame in zip(specs, frames, strict=True)]
        self.layout = _layout(specs)
        self._memory: list[NDArray[np.uint8]] = []

    @property
    def memory(self) -> list[NDArray[np.uint8]]:
        """The bytes of each tensor by rows."""
        if not self._memory:
            self._memory = [np.frombuffer(frame, np.uint8).reshape(self.samples, -1) for frame in self.frames]
        return self._memory


class OpenBatch:
    """A batch between the data loader and the training loop.

    The trainer's thread makes it, the I/O thread cuts it and places labels, the trainer's thread
    takes ``labels`` once the queue says that all are there. ``poison`` says why there are none.
    ``allocate`` makes the label buffers, in the I/O thread. Without it they are ordinary memory: large frames
    become the labels themselves, uncopied, where one answer labels the whole batch. ``nbytes`` is the memory
    that the batch holds: what the loop gets, and what teachers see, counted once.
    """

    def __init__(
        self,
        batch: Any,
        inputs: Mapping[str, Tensor],
        samples: int,
        mark: Any = None,
        allocate: Allocate | None = None,
    ) -> None:
        self.batch = batch
        self.samples = samples
        self.mark = mark
        self._allocate = allocate
        self.poison: PoisonTaskError | None = None
        self._rows = [_Rows(name, tensor, samples) for name, tensor in inputs.items()]
        self._labels: dict[str, TeacherLabels] = {}
        self.layout: Layout = tuple((rows.name, rows.dtype, rows.shape) for rows in self._rows)
        copies = sum(rows.memory.nbytes for rows in self._rows if rows.copied)
        self.nbytes = held_bytes((batch, dict(inputs))) + copies

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample in the largest input tensor: what bounds the samples of a frame."""
        return max((rows.row_bytes for rows in self._rows), default=0)

    @property
    def input_bytes(self) -> int:
        return sum(rows.memory.nbytes for rows in self._rows)

    def cut(self, start: int, stop: int) -> list[memoryview | Piece]:
        """Some samples of every input tensor, in the order of ``layout``: views, no copies."""
        return [rows.cut(start, stop) for rows in self._rows]

    def place(self, teacher: str, start: int, stop: int, rows: LabelRows, first: int) -> int:
        """Put one task's labels into the batch's buffers, made on first need.

        Args:
            rows: where they came; the task's begin at row ``first``.

        Returns:
            Bytes of buffers that were made.

        Raises:
            LabelError: names, shapes or dtypes differ from the batch's other tasks. Nothing is
                written then.
            LabelMemoryError: this rank has no memory for the buffers. Nothing is kept of them then.
        """
        labels = self._labels.get(teacher)
        made = 0
        if labels is None:
            whole = start == 0 and stop == self.samples == rows.samples
            keep_frames = whole and rows.own_memory and self._allocate is None
            allocate = self._allocate or _pageable
            labels = self._labels[teacher] = TeacherLabels(teacher, rows, self.samples, allocate, keep_frames)
            made = sum(buffer.tensor.nbytes for buffer in labels.buffers)
        order = labels.order_of(rows)
        last = first + stop - start
        for index, buffer in zip(order, labels.buffers, strict=True):
            if buffer.memory is not None:
                buffer.memory[start:stop] = rows.memory[index][first:last]
        return made

    def labels(self) -> dict[str, dict[str, Tensor]]:
        """The tensors in which the labels of each teacher came: what its codec packed."""
        return {
            teacher: {buffer.spec.name: buffer.tensor for buffer in labels.buffers}
            for teacher, labels in self._labels.items()
        }


def _checked(spec: TensorSpec, frame: Buffer, samples: int) -> torch.dtype:
    try:
        dtype = check(spec, frame)
    except WireError as exc:
        raise LabelError(str(exc)) from exc
    if not spec.shape or spec.shape[0] != samples:
        raise LabelError(
            f"output {spec.name!r} has shape {spec.shape} for {samples} samples; "
            "its first dimension must be the samples"
        )
    return dtype


def _layout(specs: Sequence[TensorSpec]) -> Layout:
    return tuple((spec.name, spec.dtype, tuple(spec.shape[1:])) for spec in specs)
