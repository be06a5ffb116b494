"""Memory that a data loader only lends: batches that wait for labels while it may be written again.

A plain loop is done with a batch when it asks for the next one, so a data loader may fill one buffer of its
own again and again, as loaders of videos and loaders onto GPUs do. Here several batches are open at once.
"""

from __future__ import annotations

import copy
import ctypes
import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from edldist.errors import InputError
from edldist.student.leaves import Leaf
from edldist.student.to_device import mapped

__all__ = ["Borrowed", "copied"]

_CHUNKS = 4  # places at which dense memory is looked at
_CHUNK_BYTES = 256
_PICKED = 64  # elements of memory with gaps that are looked at
_MOST_PARTS = 256

_REMEDY = (
    "The data loader uses its memory again, or the loop wrote to a tensor that several batches share. Pass "
    "copy_batches=True, or let the data loader make new tensors for each batch"
)


class Borrowed:
    """How the memory of a batch looked when it was read.

    Of each tensor and array it keeps what tells whether it was written to since: torch's count of writes,
    where the tensor is all of its storage, and some of its bytes (up to 1 KiB, evenly spread), because writes
    through numpy, DLPack or a library of its own are not counted. On an accelerator it keeps the count alone.

    Not noticed: a write that changes none of these bytes; tensors in objects that ``leaves`` does not look
    into; what is beyond the first 256 of them, since who fills memory again fills all of it.

    Args:
        parts: the batch's tensors and arrays; kept alive.

    Attributes:
        on_accelerators: where its tensors that are not in host memory begin.
    """

    __slots__ = ("_pieces", "on_accelerators")

    def __init__(self, parts: Sequence[Leaf]) -> None:
        self._pieces = [_piece(part) for part in parts[:_MOST_PARTS]]
        self.on_accelerators = {
            (str(piece.part.device), piece.address)
            for piece in self._pieces
            if not piece.chunks and piece.address and isinstance(piece.part, Tensor)
        }

    def check(self) -> None:
        """Be sure that it is what was read.

        Raises:
            InputError: something was written to.
        """
        for piece in self._pieces:
            if piece.address and not piece.looks_like(_piece(piece.part, piece)):
                part = piece.part
                kind = "a tensor" if isinstance(part, Tensor) else "an array"
                what = f"{kind} of {part.dtype} and shape {list(part.shape)}"
                raise InputError(
                    f"{what} in a batch was written to after it had been read, while it waited for labels: "
                    f"it is not what was labelled any more. {_REMEDY}"
                )

    def check_apart(self, others: Iterable[Borrowed]) -> None:
        """Be sure that it has no accelerator's memory in common with batches that are open.

        Writes there are not all counted, and to look at the memory would mean to wait for the device.

        Raises:
            InputError: it has.
        """
        for other in others if self.on_accelerators else ():
            if not (common := self.on_accelerators & other.on_accelerators):
                continue
            device = min(common)[0]
            raise InputError(
                f"two batches that wait for their labels lie in the same memory of {device}. {_REMEDY}"
            )


def copied(batch: Any) -> Any:
    """A batch in memory of its own, in the same structure."""
    return mapped(batch, torch.clone, _copied_leaf)


def _copied_leaf(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        return leaf.copy()
    return copy.deepcopy(leaf)  # an object of whatever kind, which may hold tensors


class _Piece(NamedTuple):
    """One tensor or array as it looks.

    Attributes:
        address: where its memory begins; 0 if it has none that could be looked at.
        writes: torch's count of writes; None if it cannot be had, or counts writes to other memory too.
        chunks: (offset, bytes) of what is read of it; nothing on an accelerator.
        sample: what is there.
    """

    part: Leaf
    address: int
    writes: int | None
    chunks: tuple[tuple[int, int], ...]
    sample: bytes

    def looks_like(self, other: _Piece) -> bool:
        """Whether nothing was written from the one to the other; not ``==``, which asks the tensors."""
        return self[1:] == other[1:]


def _piece(part: Leaf, before: _Piece | None = None) -> _Piece:
    """How a tensor or array looks now; ``before`` spares finding out again what cannot have changed."""
    if isinstance(part, Tensor):
        return _tensor_piece(part, before)
    if part.dtype.hasobject or not part.size:
        return _Piece(part, 0, None, (), b"")
    address = part.__array_interface__["data"][0]
    strides = tuple(stride // part.itemsize for stride in part.strides)
    if min(strides, default=0) < 0 or any(stride % part.itemsize for stride in part.strides):
        picked = part[tuple(slice(None, None, max(1, size // 8)) for size in part.shape)]
        return _Piece(part, address, None, (), picked.tobytes())
    chunks = _chunks(part.shape, strides, part.itemsize)
    return _Piece(part, address, None, chunks, _read(address, chunks))


def _tensor_piece(tensor: Tensor, before: _Piece | None) -> _Piece:
    if before is None:
        strided = tensor.layout is torch.strided and not tensor.is_nested and not tensor.is_meta
        if not (strided and tensor.numel()):
            return _Piece(tensor, 0, None, (), b"")
        chunks = _chunks(tensor.shape, tensor.stride(), tensor.itemsize) if tensor.is_cpu else ()
        counts = tensor.untyped_storage().nbytes() == tensor.nbytes
    else:
        chunks, counts = before.chunks, before.writes is not None
    try:
        writes = tensor._version if counts else None
    except RuntimeError:  # one that was made in inference mode has no count
        writes = None
    address = tensor.data_ptr()
    # Nothing is read at an address that another one took the place of.
    sample = _read(address, chunks) if before is None or before.address == address else b""
    return _Piece(tensor, address, writes, chunks, sample)


def _read(address: int, chunks: tuple[tuple[int, int], ...]) -> bytes:
    if len(chunks) == 1:
        return ctypes.string_at(address + chunks[0][0], chunks[0][1])
    return b"".join([ctypes.string_at(address + offset, nbytes) for offset, nbytes in chunks])


@functools.lru_cache(maxsize=1024)
def _chunks(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> tuple[tuple[int, int], ...]:
    """(offset, bytes) of the samples of a tensor of at least one element, none of them outside of it."""
    extent = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    elements = math.prod(shape)
    if extent == elements:  # no gaps
        nbytes = extent * itemsize
        if nbytes <= _CHUNKS * _CHUNK_BYTES:
            return ((0, nbytes),)
        last = nbytes - _CHUNK_BYTES
        return tuple((last * chunk // (_CHUNKS - 1), _CHUNK_BYTES) for chunk in range(_CHUNKS))
    picked = sorted({(elements - 1) * number // (_PICKED - 1) for number in range(_PICKED)})
    return tuple((_offset(number, shape, strides) * itemsize, itemsize) for number in picked)


def _offset(number: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Where the element of a number, counted in row-major order, lies."""
    offset = 0
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        number, index = divmod(number, size)
        offset += index * stride
    return offset
