"""A batch on its way: its inputs as sliceable bytes, its labels in one buffer per output.

Inputs are cut as views; labels are written where they belong. Neither is copied on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edldist.errors import LabelError, PoisonTaskError, WireError
from edldist.wire.messages import TensorSpec
from edldist.wire.tensors import as_bytes, check, dtype_name

__all__ = ["OpenBatch"]


class _Rows:
    """One input tensor, sliceable by samples without a copy."""

    __slots__ = ("dtype", "memory", "name", "row_bytes", "shape")

    def __init__(self, name: str, tensor: Tensor, samples: int) -> None:
        self.name = name
        self.dtype = dtype_name(tensor.dtype)
        self.memory = as_bytes(tensor)
        self.shape = list(tensor.shape[1:])
        self.row_bytes = self.memory.nbytes // samples if samples else 0

    def cut(self, start: int, stop: int) -> tuple[TensorSpec, memoryview]:
        spec = TensorSpec(name=self.name, dtype=self.dtype, shape=[stop - start, *self.shape])
        return spec, self.memory[start * self.row_bytes : stop * self.row_bytes]


class _Buffer:
    """One label tensor of a batch, and its memory."""

    __slots__ = ("memory", "spec", "tensor")

    def __init__(self, spec: TensorSpec, dtype: torch.dtype, samples: int) -> None:
        self.spec = spec
        try:
            self.tensor = torch.empty([samples, *spec.shape[1:]], dtype=dtype)
        except RuntimeError as exc:
            raise LabelError(
                f"there is no memory for output {spec.name!r} of shape {[samples, *spec.shape[1:]]}: "
                f"{str(exc).splitlines()[0]}"
            ) from exc
        self.memory: NDArray[np.uint8] = self.tensor.reshape(-1).view(torch.uint8).numpy()


class OpenBatch:
    """A batch between the data loader and the training loop.

    The trainer's thread makes it, the I/O thread cuts it and places labels, the trainer's thread
    takes ``labels`` once the queue says that all are there. ``poison`` says why there are none.
    """

    def __init__(self, batch: Any, inputs: Mapping[str, Tensor], samples: int, origin: Any = None) -> None:
        self.batch = batch
        self.samples = samples
        self.origin = origin
        self.poison: PoisonTaskError | None = None
        self._rows = [_Rows(name, tensor, samples) for name, tensor in inputs.items()]
        self._labels: dict[str, dict[str, _Buffer]] = {}

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample in the largest input tensor: what bounds the samples of a frame."""
        return max((rows.row_bytes for rows in self._rows), default=0)

    @property
    def input_bytes(self) -> int:
        return sum(rows.memory.nbytes for rows in self._rows)

    def cut(self, start: int, stop: int) -> tuple[list[TensorSpec], list[memoryview]]:
        """Specs and frames of some samples' inputs: views, no copies."""
        cuts = [rows.cut(start, stop) for rows in self._rows]
        return [spec for spec, _ in cuts], [frame for _, frame in cuts]

    def place(
        self, teacher: str, start: int, stop: int, specs: Sequence[TensorSpec], frames: Sequence[memoryview]
    ) -> int:
        """Write one task's labels into the batch's buffers, made on first need.

        Returns:
            Bytes of buffers that were made.

        Raises:
            LabelError: names, shapes or dtypes differ from the batch's other tasks, or the first
                dimension is not the task's number of samples. Nothing is written then.
        """
        samples = stop - start
        checked = {
            spec.name: _checked(spec, frame, samples) for spec, frame in zip(specs, frames, strict=True)
        }
        if len(checked) != len(specs) or not specs:
            raise LabelError(f"teacher {teacher!r} sent outputs {[spec.name for spec in specs]}")
        buffers = self._labels.get(teacher)
        made = 0
        if buffers is None:
            buffers = {spec.name: _Buffer(spec, checked[spec.name], self.samples) for spec in specs}
            made = sum(buffer.memory.nbytes for buffer in buffers.values())
        else:
            _match(teacher, buffers, specs)
        for spec, frame in zip(specs, frames, strict=True):
            memory = buffers[spec.name].memory
            row_bytes = memory.nbytes // self.samples
            memory[start * row_bytes : stop * row_bytes] = np.frombuffer(frame, np.uint8)
        self._labels[teacher] = buffers
        return made

    def labels(self, prefix_teacher: bool) -> dict[str, Tensor]:
        """The label tensors, keyed ``output`` or ``teacher/output``."""
        return {
            f"{teacher}/{name}" if prefix_teacher else name: buffer.tensor
            for teacher, buffers in self._labels.items()
            for name, buffer in buffers.items()
        }


def _checked(spec: TensorSpec, frame: memoryview, samples: int) -> torch.dtype:
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


def _match(teacher: str, buffers: Mapping[str, _Buffer], specs: Sequence[TensorSpec]) -> None:
    if {spec.name for spec in specs} != buffers.keys():
        raise LabelError(
            f"teacher {teacher!r} sent outputs {sorted(spec.name for spec in specs)} for one task of a batch "
            f"and {sorted(buffers)} for another"
        )
    for spec in specs:
        first = buffers[spec.name].spec
        if spec.dtype != first.dtype or spec.shape[1:] != first.shape[1:]:
            raise LabelError(
                f"output {spec.name!r} of teacher {teacher!r} is {spec.dtype}{spec.shape} for one task of a "
                f"batch and {first.dtype}{first.shape} for another: the samples of a batch need one shape"
            )
