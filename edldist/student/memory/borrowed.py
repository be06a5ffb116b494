"""Memory that a data loader only lends: batches that wait for labels while it may be written again.

A plain loop is done with a batch when it asks for the next one, so a data loader may fill one buffer of its
own again and again, as loaders of videos and loaders onto GPUs do. Here several batches are open at once.
"""

from __future__ import annotations

import ctypes
import functools
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edldist.errors import InputError
from edldist.student.memory.containers import LeftContainer
from edldist.student.memory.leaves import Leaf, is_host_tensor, is_wrapper, wrapped_in

__all__ = ["WHOLE_BYTES", "Borrowed"]

WHOLE_BYTES = 16 << 10
"""So much of a tensor or array is kept byte by byte, which takes no longer than to ask whose it is."""

_CHUNKS = 4  # places at which memory is looked at that is nobody else's
_CHUNK_BYTES = 256

_Looks = tuple[Any, ...]
"""Where memory lies and what is there; empty where there is none to look at."""

_REMEDY = (
    "The data loader uses its memory again, or the loop wrote to a tensor that several batches share. Pass "
    "copy_batches=True, or let the data loader make new tensors for each batch"
)


class Borrowed:
    """How the memory of a batch looked when it was read.

    Of each tensor and array in host memory it keeps what any write changes, whoever writes and however:

    - of up to 16 KiB: all bytes;
    - of more: a checksum of all bytes (CRC-32: one change in 2**32 goes unnoticed);
    - of more that is ``unshared``: a sample. Whoever wrote to it later would have had to refer to it when it
      was read, and nobody did; only another process that goes on writing to what it handed over could,
      which a plain loop would not notice either.

    Of an accelerator's tensor it keeps torch's count of writes: to look at it would mean to wait.

    Of a tensor that wraps others (DTensor, MaskedTensor) it keeps how those look.

    Not looked at: what is in objects that ``leaves`` does not look into, but for tensors that are their
    attributes.

    Args:
        parts: the batch's tensors and arrays; kept alive.
        unshared: those that nothing but the batch refers to, by ``id`` (see ``ownership``).
        left: objects that may be filled again (see ``containers``).

    Attributes:
        on_accelerators: where its tensors that are not in host memory begin.
    """

    __slots__ = ("_left", "_parts", "_wrappers", "on_accelerators")

    def __init__(
        self,
        parts: Sequence[Leaf],
        unshared: frozenset[int] = frozenset(),
        left: Sequence[LeftContainer] = (),
    ) -> None:
        if left:
            # Whoever holds such an object has its tensors, however few refer to them.
            unshared = unshared.difference(id(part) for holder in left for part in holder.tensors)
            known = {id(part) for part in parts}
            parts = [*parts, *(part for holder in left for part in holder.tensors if id(part) not in known)]
        self._parts: list[tuple[Leaf, bool, _Looks]] = []
        self._wrappers: tuple[tuple[Tensor, list[Tensor], Borrowed], ...] = ()
        self._left = left
        self.on_accelerators: frozenset[tuple[Any, Any]] = frozenset()
        for part in parts:
            if type(part) is not Tensor and isinstance(part, Tensor) and is_wrapper(part):
                within = Borrowed(inside := wrapped_in(part))
                self._wrappers += ((part, inside, within),)
                self.on_accelerators |= within.on_accelerators
                continue
            looks = _looks(part, mine := id(part) in unshared)
            self._parts.append((part, mine, looks))
            if looks and isinstance(part, Tensor) and not part.is_cpu:
                self.on_accelerators |= {looks[:2]}

    def check(self) -> None:
        """Be sure that it is what was read.

        Raises:
            InputError: something was written to, or filled again.
        """
        for wrapper, inside, within in self._wrappers:
            now = {id(part) for part in wrapped_in(wrapper)}
            if any(id(part) not in now for part in inside):
                raise _changed(f"a {type(wrapper).__qualname__} in a batch was filled with other tensors")
            within.check()
        for part, unshared, looks in self._parts:
            if _looks(part, unshared) != looks:
                kind = "a tensor" if isinstance(part, Tensor) else "an array"
                what = f"{kind} of {part.dtype} and shape {list(part.shape)} in a batch was written to"
                raise _changed(what)
        for left in self._left:
            if (wrong := left.check()) is not None:
                raise _changed(wrong)

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


def _changed(what: str) -> InputError:
    return InputError(
        f"{what} after it had been read, while it waited for labels: it is not what was labelled any more. "
        f"{_REMEDY}"
    )


# --- how one part looks -------------------------------------------------------------------------------


def _looks(part: Leaf, unshared: bool) -> _Looks:
    if not is_host_tensor(part):
        return _looks_of_other(part, unshared)
    nbytes = part.nbytes
    # One without memory, as that of zeros which torch only promises, has no address.
    if not nbytes or not (address := part.data_ptr()):
        return ()
    if part.is_contiguous():
        return address, _seen(address, nbytes, unshared)
    extent = _extent(part.shape, part.stride()) * part.itemsize
    if extent <= nbytes:  # in another order, or some of it several times
        return address, _seen(address, extent, unshared)
    # What lies between is somebody else's. What is there several times is read once.
    once = part.detach()[tuple(slice(None) if stride else slice(1) for stride in part.stride())].contiguous()
    return address, _seen(once.data_ptr(), once.nbytes, unshared)


def _looks_of_other(part: Leaf, unshared: bool) -> _Looks:
    if not isinstance(part, Tensor):
        return _looks_of_array(part, unshared)
    if not part.is_cpu:
        return _looks_on_accelerator(part)
    return tuple(_looks(inner, False) for inner in _dense_parts(part))


def _looks_of_array(array: NDArray[Any], unshared: bool) -> _Looks:
    if isinstance(array, np.ma.MaskedArray):
        return _looks_of_array(array.data, False), _looks_of_array(np.ma.getmaskarray(array), False)
    if array.dtype.hasobject or not array.size:
        return ()
    if min(array.strides, default=0) < 0:
        array = array[tuple(slice(None, None, -1 if stride < 0 else None) for stride in array.strides)]
    address = array.__array_interface__["data"][0]
    to_last = sum((size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True))
    if (extent := array.itemsize + to_last) <= array.nbytes:
        return address, _seen(address, extent, unshared)
    once = array[tuple(slice(None) if stride else slice(1) for stride in array.strides)].copy()
    return address, _seen(once.__array_interface__["data"][0], once.nbytes, unshared)


def _looks_on_accelerator(tensor: Tensor) -> _Looks:
    strided = tensor.layout is torch.strided and not tensor.is_nested
    if not strided or tensor.is_meta or not tensor.numel():
        return ()
    whole = tensor.untyped_storage().nbytes() == tensor.nbytes
    try:
        # Views count the writes to what they are views of.
        writes = tensor._version if whole else None
    except RuntimeError:  # one that was made in inference mode has no count
        writes = None
    return str(tensor.device), tensor.data_ptr(), writes


def _dense_parts(tensor: Any) -> list[Tensor]:
    """The dense tensors of which a sparse or nested one is made."""
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    if tensor.layout is torch.jagged:
        lengths = tensor.lengths()
        return [tensor.values(), tensor.offsets(), *([] if lengths is None else [lengths])]
    return [] if tensor.layout is not torch.strided else [tensor.values()]


def _seen(address: int, nbytes: int, unshared: bool) -> bytes | int:
    """What is in memory: all of it, a sample, or the checksum."""
    if nbytes <= WHOLE_BYTES:
        return ctypes.string_at(address, nbytes)
    if unshared:
        memory, last = _memory_at(address, nbytes, _READ_ONLY), nbytes - _CHUNK_BYTES
        places = [last * chunk // (_CHUNKS - 1) for chunk in range(_CHUNKS)]
        return b"".join([memory[place : place + _CHUNK_BYTES] for place in places])
    return zlib.crc32(_memory_at(address, nbytes, _READ_ONLY))


@functools.lru_cache(maxsize=1024)
def _extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements from the first to the last of a tensor that has any, with those that lie between."""
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


_READ_ONLY = 0x100  # PyBUF_READ
_memory_at = ctypes.pythonapi.PyMemoryView_FromMemory
_memory_at.restype = ctypes.py_object
_memory_at.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
