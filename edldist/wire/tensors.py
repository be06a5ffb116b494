"""Tensors as raw frames: a typed spec in the header, the bytes beside it, sizes always checked."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edldist.errors import WireError
from edldist.wire.messages import MAX_DIMENSIONS, MAX_NAME, TensorSpec
from edldist.wire.texts import KINDS, TextName
from edldist.wire.transport import Buffer

__all__ = [
    "DTYPES",
    "as_bytes",
    "as_rows",
    "as_tensor",
    "check",
    "dtype_name",
    "own_bytes",
    "pack",
    "spec_of",
    "unpack",
]

DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, name)
    for name in (
        *("float64", "float32", "float16", "bfloat16"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"),
    )
}
"""Wire name -> dtype. Byte order is little-endian, as on every machine that torch runs on."""

_MAX_ELEMENTS = (1 << 63) // 8 - 1

# Those that numpy has too, under names that a memoryview knows.
_NUMPY = frozenset(
    getattr(torch, name)
    for name in ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
)

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def dtype_name(dtype: torch.dtype) -> str:
    """The wire name of a dtype.

    Raises:
        WireError: the dtype does not travel (complex, quantized).
    """
    try:
        return _NAMES[dtype]
    except KeyError:
        raise WireError(f"tensors of {dtype} cannot be sent; convert to one of {', '.join(DTYPES)}") from None


def spec_of(name: str, tensor: Tensor) -> TensorSpec:
    """The header entry of a tensor.

    Raises:
        WireError: it has a dtype, more dimensions, or a longer name than can travel.
    """
    if tensor.dim() > MAX_DIMENSIONS or len(name) > MAX_NAME:
        raise WireError(
            f"tensor {name[:64]!r} has {tensor.dim()} dimensions and a name of {len(name)} characters; "
            f"{MAX_DIMENSIONS} dimensions and {MAX_NAME} characters can be sent"
        )
    return TensorSpec(name=name, dtype=dtype_name(tensor.dtype), shape=list(tensor.shape))


def as_bytes(tensor: Tensor) -> memoryview:
    """The memory of a tensor, without a copy when it is a contiguous host tensor.

    The view keeps the tensor's storage alive.
    """
    if (own := own_bytes(tensor)) is not None:
        return own
    if tensor.layout is not torch.strided or tensor.is_nested or tensor.device.type == "meta":
        raise WireError(f"only dense tensors with data can be sent, not {tensor.layout} on {tensor.device}")
    host = tensor.detach().resolve_neg().cpu().contiguous()
    # as_strided, since a lone element counts as contiguous whatever its stride, which view minds.
    return host.as_strided((host.numel(),), (1,)).view(torch.uint8).numpy().data


def own_bytes(tensor: Tensor) -> memoryview | None:
    """The memory of an ordinary tensor, as nearly all are, in a fifth of the time that others take.

    Returns:
        None for any other, whether ``as_bytes`` copies that or not.
    """
    if not (tensor.is_cpu and tensor.layout is torch.strided and not tensor.is_nested):
        return None
    if tensor.requires_grad or tensor.dtype not in _NUMPY or not tensor.is_contiguous() or not tensor.numel():
        return None
    try:
        return tensor.numpy().data.cast("B")
    except RuntimeError:  # one that is not what lies in its memory, such as a negative view
        return None


def as_rows(tensor: Tensor, rows: int) -> NDArray[np.uint8]:
    """The memory of a contiguous host tensor, by rows: what is written there is in the tensor."""
    if tensor.dtype in _NUMPY:
        return tensor.numpy().reshape(rows, -1).view(np.uint8)
    return np.frombuffer(as_bytes(tensor), np.uint8).reshape(rows, -1)


def pack(
    tensors: Mapping[str, Tensor], max_frame_bytes: int | None = None
) -> tuple[list[TensorSpec], list[memoryview]]:
    """Specs and frames of named tensors, in their order.

    Args:
        tensors: any device, any strides, any shape (zero-dimensional and empty ones too).
        max_frame_bytes: refuse a larger frame here, where its name is known, instead of being
            disconnected by the receiver.

    Raises:
        WireError: a dtype or layout that does not travel, or a tensor that is too large.
    """
    specs, frames = [], []
    for name, tensor in tensors.items():
        spec = spec_of(name, tensor)
        frame = as_bytes(tensor)
        if max_frame_bytes is not None and frame.nbytes > max_frame_bytes:
            raise WireError(
                f"tensor {name!r} of shape {list(tensor.shape)} is {frame.nbytes} bytes; a frame may have "
                f"{max_frame_bytes}. Use a smaller teacher batch size or a more compact codec"
            )
        specs.append(spec)
        frames.append(frame)
    return specs, frames


def check(spec: TensorSpec, frame: Buffer) -> torch.dtype:
    """Check that a frame is exactly the tensor that its spec says, and return the dtype.

    Raises:
        WireError: unknown dtype, a shape that no tensor can have, or a size that does not fit.
    """
    dtype = DTYPES.get(spec.dtype)
    if dtype is None:
        raise WireError(f"tensor {spec.name!r} has the unknown dtype {spec.dtype!r}")
    elements = _elements(tuple(spec.shape))
    if elements is None:
        raise WireError(f"tensor {spec.name!r} has the impossible shape {spec.shape}")
    expected = elements * dtype.itemsize
    nbytes = memoryview(frame).nbytes
    if nbytes != expected:
        raise WireError(
            f"tensor {spec.name!r} is {spec.dtype}{spec.shape}, {expected} bytes; its frame has {nbytes}"
        )
    return dtype


@functools.lru_cache(maxsize=256)
def _elements(shape: tuple[int, ...]) -> int | None:
    """How many elements a tensor of a shape has; None if there can be none."""
    # A zero makes any shape's product fit: [0, 2**63] has no bytes, and no strides either.
    if min(shape, default=0) < 0 or math.prod(max(1, size) for size in shape) > _MAX_ELEMENTS:
        return None
    return math.prod(shape)


def unpack(
    specs: Sequence[TensorSpec], frames: Sequence[memoryview], *, texts: bool = False
) -> dict[str, Tensor]:
    """Named tensors over the frames' own memory (no copy where alignment allows).

    Args:
        texts: whether texts may be among them (``edldist.wire.texts``): uint8, under a ``TextName``.

    Raises:
        WireError: counts, names, dtypes or sizes do not fit.
    """
    if len(specs) != len(frames):
        raise WireError(f"{len(specs)} tensors announced, {len(frames)} frames came")
    tensors: dict[str, Tensor] = {}
    for spec, frame in zip(specs, frames, strict=True):
        name = spec.name
        if texts and spec.dtype in KINDS:
            name = TextName(name, spec.dtype)
            spec = msgspec.structs.replace(spec, dtype="uint8")
        dtype = check(spec, frame)
        if name in tensors:
            raise WireError(f"tensor {name!r} came twice in one message")
        tensors[name] = as_tensor(frame, dtype).reshape(spec.shape)
    return tensors


def as_tensor(frame: memoryview, dtype: torch.dtype) -> Tensor:
    """A flat tensor over a frame's own memory; over a copy if that is read-only, or not aligned."""
    if frame.nbytes == 0:
        return torch.empty(0, dtype=dtype, device="cpu")
    if frame.readonly:
        # Memory that the sender goes on using, while a model may change its inputs in place. numpy
        # copies without the interpreter lock.
        frame = np.frombuffer(frame, np.uint8).copy().data
    flat = torch.frombuffer(frame, dtype=dtype)
    if flat.data_ptr() % dtype.itemsize:
        flat = torch.frombuffer(frame, dtype=torch.uint8).clone().view(dtype)
    return flat
