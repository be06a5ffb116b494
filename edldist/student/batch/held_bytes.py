"""How much memory a batch holds, whatever it is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edldist.student.memory.leaves import is_wrapper, wrapped_in

__all__ = ["held_bytes"]

# Tuples made once, the frequent types first: this is done for every batch.
_ARRAYS = (Tensor, np.ndarray)
_SCALARS = (str, int, float, type(None))
_STRINGS = (bytes, bytearray, memoryview)
_MAPPINGS = (dict, Mapping)
_COLLECTIONS = (list, tuple, Sequence, Set)


def held_bytes(value: Any) -> int:
    """Bytes of all tensors and arrays in nested mappings, sequences, sets and dataclasses.

    Memory that several of them look at counts once; of memory that they look at in part, such as a data set
    that is cut into batches, the part counts. Byte strings count too. Other objects are not looked into: what
    hangs on those of a batch is found where its containers are made anew (``memory.containers``).
    """
    if type(value) is Tensor and value.layout is torch.strided and not value.is_nested:
        return min(value.nbytes, value.untyped_storage().nbytes())
    # By where a piece of memory begins: what is looked at of it, and its size.
    pieces: dict[tuple[object, int], tuple[int, int]] = {}
    seen: set[int] = set()
    strings = 0
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, _ARRAYS):
            if id(item) not in seen:
                seen.add(id(item))
                if isinstance(item, Tensor) and is_wrapper(item):
                    stack.extend(wrapped_in(item))
                    continue
                where, part, whole = _of_tensor(item) if isinstance(item, Tensor) else _of_array(item)
                pieces[where] = (pieces.get(where, (0, 0))[0] + part, whole)
        elif isinstance(item, _SCALARS):
            continue
        elif isinstance(item, _STRINGS):
            strings += memoryview(item).nbytes
        elif id(item) not in seen:
            seen.add(id(item))
            if isinstance(item, _MAPPINGS):
                stack.extend(item.values())
            elif isinstance(item, _COLLECTIONS):
                stack.extend(item)
            elif dataclasses.is_dataclass(item) and not isinstance(item, type):
                stack.extend(getattr(item, field.name, None) for field in dataclasses.fields(item))
    return strings + sum(min(part, whole) for part, whole in pieces.values())


def _of_tensor(tensor: Tensor) -> tuple[tuple[object, int], int, int]:
    if tensor.layout is not torch.strided or tensor.is_nested or not tensor.data_ptr():
        nbytes = tensor.numel() * tensor.element_size()
        return (("object", id(tensor)), nbytes, nbytes)
    storage = tensor.untyped_storage()
    device = None if tensor.is_cpu else tensor.device
    return ((device, storage.data_ptr()), tensor.nbytes, storage.nbytes())


def _of_array(array: NDArray[Any]) -> tuple[tuple[object, int], int, int]:
    owner: Any = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return ((None, owner.ctypes.data), array.nbytes, owner.nbytes)
