"""The tensors and arrays that a batch is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Leaf", "is_host_tensor", "is_wrapper", "leaves", "of_plain_values", "wrapped_in"]

Leaf = Tensor | NDArray[Any]

_SHORT = 16
_SCALARS = (str, int, float, bytes, type(None))


def leaves(*values: Any) -> list[Leaf]:
    """Every tensor and array in nested mappings, lists, tuples and data classes, each once.

    A long list that begins and ends with strings or numbers is taken for one of such. Other objects are not
    looked into: nobody knows what else hangs on them.
    """
    found: list[Leaf] = []
    seen: set[int] = set()
    stack: list[Any] = list(values)
    while stack:
        item = stack.pop()
        if isinstance(item, Tensor):
            if id(item) not in seen:
                seen.add(id(item))
                found.append(item)
        elif isinstance(item, _SCALARS) or id(item) in seen:
            continue
        else:
            seen.add(id(item))
            if isinstance(item, (dict, Mapping)):
                stack.extend(item.values())
            elif isinstance(item, (tuple, list)):
                if not of_plain_values(item):
                    stack.extend(item)
            elif isinstance(item, np.ndarray):
                found.append(item)
            elif dataclasses.is_dataclass(item) and not isinstance(item, type):
                stack.extend(getattr(item, field.name, None) for field in dataclasses.fields(item))
    return found


def of_plain_values(items: list[Any] | tuple[Any, ...]) -> bool:
    """Whether a sequence is taken for one of strings or numbers: long, and beginning and ending with such."""
    return len(items) > _SHORT and isinstance(items[0], _SCALARS) and isinstance(items[-1], _SCALARS)


def is_host_tensor(part: Leaf) -> TypeGuard[Tensor]:
    """Whether it is a tensor with memory of its own, on the host, that can be read by strides."""
    if type(part) is not Tensor and (not isinstance(part, Tensor) or is_wrapper(part)):
        return False
    return part.is_cpu and part.layout is torch.strided and not part.is_nested


def is_wrapper(tensor: Tensor) -> bool:
    """Whether a tensor answers for others and has no memory of its own that could be read.

    So are those of classes with a ``__torch_dispatch__`` (DTensor, MaskedTensor, FakeTensor), but for nested
    ones, whose parts their layout tells. The address that they give, if any, is none.
    """
    kind = type(tensor)
    return (
        kind is not Tensor
        and kind.__torch_dispatch__ is not Tensor.__torch_dispatch__
        and tensor.layout is not torch.jagged
    )


def wrapped_in(tensor: Any) -> list[Tensor]:
    """The tensors that a wrapper answers for: those that it names, or else those among its attributes."""
    if hasattr(tensor, "__tensor_flatten__"):
        named = [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
    else:
        named = list(getattr(tensor, "__dict__", {}).values())
    return [part for part in named if isinstance(part, Tensor)]
