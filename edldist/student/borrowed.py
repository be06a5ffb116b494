"""Memory that a data loader only lends: batches that wait for labels while it may be written again.

A plain loop is done with a batch when it asks for the next one, so a data loader may fill one buffer of its
own again and again, as loaders of videos and loaders onto GPUs do. Here several batches are open at once.
"""

from __future__ import annotations

import copy
import ctypes
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edldist.errors import InputError
from edldist.student.to_device import mapped

__all__ = ["Borrowed", "copied"]

_CHUNKS = 16
_CHUNK_BYTES = 64
_MOST_ENTRIES = 64  # of a list or tuple in a batch that are looked at: who fills memory again fills all of it

_REMEDY = (
    "The data loader uses its memory again, or the loop wrote to a tensor that several batches share. Pass "
    "copy_batches=True, or let the data loader make new tensors for each batch"
)


class Borrowed:
    """How the memory of a batch looked when it was read.

    Of each tensor and array it keeps what tells whether it was written to since: torch's count of writes,
    where the tensor is all of its storage, and some of its bytes (up to 1 KiB, evenly spread), because writes
    through numpy, DLPack or a library of its own are not counted. On an accelerator it keeps the count alone.

    Not noticed: a write that changes none of these bytes; tensors in objects other than mappings, lists,
    tuples and data classes.

    Args:
        values: nested batches; tensors are kept alive.

    Attributes:
        on_accelerators: where its tensors that are not in host memory begin.
    """

    __slots__ = ("_arrays", "_tensors", "on_accelerators")

    def __init__(self, *values: Any) -> None:
        self._tensors: list[tuple[Tensor, int | None, bytes]] = []
        self._arrays: list[tuple[np.ndarray[Any, Any], bytes]] = []
        for leaf in _leaves(values):
            if isinstance(leaf, Tensor):
                self._tensors.append((leaf, _writes(leaf), _sample(leaf)))
            else:
                self._arrays.append((leaf, _array_sample(leaf)))
        self.on_accelerators = frozenset(
            (str(tensor.device), tensor.data_ptr())
            for tensor, _, _ in self._tensors
            if tensor.device.type not in ("cpu", "meta") and _has_memory(tensor)
        )

    def check(self) -> None:
        """Be sure that it is what was read.

        Raises:
            InputError: something was written to.
        """
        for tensor, writes, sample in self._tensors:
            if writes != _writes(tensor) or sample != _sample(tensor):
                raise _written(f"a tensor of {tensor.dtype} and shape {list(tensor.shape)}")
        for array, sample in self._arrays:
            if sample != _array_sample(array):
                raise _written(f"an array of {array.dtype} and shape {list(array.shape)}")

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


def _written(what: str) -> InputError:
    return InputError(
        f"{what} in a batch was written to after it had been read, while it waited for its labels: it is not "
        f"what was labelled any more. {_REMEDY}"
    )


def _leaves(values: Any) -> Iterator[Tensor | np.ndarray[Any, Any]]:
    """Every tensor and array once."""
    seen: set[int] = set()
    stack = [values]
    while stack:
        item = stack.pop()
        if isinstance(item, (str, int, float, bytes)) or item is None or id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, (Tensor, np.ndarray)):
            yield item
        elif isinstance(item, Mapping):
            stack.extend(item.values())
        elif isinstance(item, (tuple, list)):
            stack.extend(item[:_MOST_ENTRIES])
        elif dataclasses.is_dataclass(item) and not isinstance(item, type):
            stack.extend(getattr(item, field.name, None) for field in dataclasses.fields(item))


def _has_memory(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_nested and tensor.numel() > 0


def _writes(tensor: Tensor) -> int | None:
    """Torch's count of writes to the tensor's memory; None if there is none, or it counts other memory."""
    if tensor.is_inference() or not _has_memory(tensor):
        return None
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor._version if whole else None


def _sample(tensor: Tensor) -> bytes:
    """Some bytes of a host tensor."""
    if tensor.device.type != "cpu" or not _has_memory(tensor):
        return b""
    chunks = _chunks(tuple(tensor.shape), tensor.stride(), tensor.element_size())
    return _read(tensor.data_ptr(), chunks)


def _array_sample(array: np.ndarray[Any, Any]) -> bytes:
    if array.dtype.hasobject or not array.size:
        return b""
    strides = tuple(stride // array.itemsize for stride in array.strides)
    if min(strides, default=0) < 0 or any(stride % array.itemsize for stride in array.strides):
        return array[tuple(slice(None, None, max(1, size // 8)) for size in array.shape)].tobytes()
    return _read(array.__array_interface__["data"][0], _chunks(array.shape, strides, array.itemsize))


def _read(address: int, chunks: tuple[tuple[int, int], ...]) -> bytes:
    if len(chunks) == 1:
        return ctypes.string_at(address + chunks[0][0], chunks[0][1])
    return b"".join([ctypes.string_at(address + offset, nbytes) for offset, nbytes in chunks])


@functools.lru_cache(maxsize=1024)
def _chunks(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> tuple[tuple[int, int], ...]:
    """(offset, bytes) of the samples of a tensor of at least one element, none of them outside of it."""
    extent = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    elements = 1
    for size in shape:
        elements *= size
    if extent == elements:  # no gaps
        nbytes = extent * itemsize
        if nbytes <= _CHUNKS * _CHUNK_BYTES:
            return ((0, nbytes),)
        last = nbytes - _CHUNK_BYTES
        return tuple((last * chunk // (_CHUNKS - 1), _CHUNK_BYTES) for chunk in range(_CHUNKS))
    picked = sorted({(elements - 1) * chunk // (_CHUNKS * 4 - 1) for chunk in range(_CHUNKS * 4)})
    return tuple((_offset(number, shape, strides) * itemsize, itemsize) for number in picked)


def _offset(number: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Where the element of a number, counted in row-major order, lies."""
    offset = 0
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        number, index = divmod(number, size)
        offset += index * stride
    return offset
