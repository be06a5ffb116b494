"""The containers of a batch: what a data loader may fill again with other tensors and numbers."""

from __future__ import annotations

import array
import copy
import dataclasses
from collections import UserDict, deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from edldist.student.leaves import Leaf, leaves, of_plain_values

__all__ = ["LeftContainer", "Taken", "taken_over"]

_UNCHANGING = (str, int, float, bytes, type(None), Tensor)
_FLAT = (bytearray, set, deque, array.array)


class LeftContainer:
    """An object of a batch that may be filled again and was left as it is, and the tensors in it."""

    __slots__ = ("_holder", "tensors")

    def __init__(self, holder: Any) -> None:
        self._holder = holder
        self.tensors = _tensors_of(holder)

    def check(self) -> str | None:
        """What is wrong if it holds other tensors than it did."""
        now = _tensors_of(self._holder)
        if [id(part) for part in now] == [id(part) for part in self.tensors]:
            return None
        return f"a {type(self._holder).__qualname__} in a batch was filled with other tensors"


class Taken(NamedTuple):
    """A batch in containers that are nobody else's.

    Attributes:
        batch: the same tensors, arrays and values, in containers of the same types.
        left: objects with tensors in them that nobody knows how to make another of.
    """

    batch: Any
    left: list[LeftContainer]


def taken_over(batch: Any) -> Taken:
    """Put what is in a batch into containers of its own, of the same types; nothing of it is copied.

    Goes where ``leaves`` goes. An object of another type stays what it is.
    """
    others: list[Any] = []
    try:
        made = _renewed(batch, others)
    except Exception:
        # A type of container with an own idea of how one is made: leave it to the one that made it.
        made, others = batch, [batch]
    return Taken(made, [left for left in map(LeftContainer, others) if left.tensors] if others else [])


def _renewed(value: Any, others: list[Any]) -> Any:
    kind = type(value)
    if kind is dict:
        return {key: _renewed(item, others) for key, item in value.items()}
    if isinstance(value, _UNCHANGING):
        return value
    if isinstance(value, np.ndarray):
        return value.copy() if value.dtype.hasobject else value
    if isinstance(value, (list, tuple)):
        return _renewed_sequence(value, others)
    if isinstance(value, (dict, UserDict)):
        mapping: Any = copy.copy(value)
        mapping.update({key: _renewed(item, others) for key, item in value.items()})
        return mapping
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        made = copy.copy(value)
        for field in dataclasses.fields(value):
            if hasattr(value, field.name):
                # Past __setattr__ and __post_init__, as ``mapped`` does.
                object.__setattr__(made, field.name, _renewed(getattr(value, field.name), others))
        return made
    if isinstance(value, _FLAT):
        return copy.copy(value)
    others.append(value)
    return value


def _renewed_sequence(value: Any, others: list[Any]) -> Any:
    items = list(value) if of_plain_values(value) else [_renewed(item, others) for item in value]
    kind = type(value)
    if kind is list:
        return items
    if isinstance(value, tuple):
        return value._make(items) if hasattr(value, "_make") else kind(items)
    made = copy.copy(value)
    made[:] = items
    return made


def _tensors_of(holder: Any) -> list[Leaf]:
    if isinstance(holder, (Mapping, list, tuple)) or dataclasses.is_dataclass(holder):
        return leaves(holder)
    values = getattr(holder, "__dict__", {}).values()
    return [value for value in values if isinstance(value, (Tensor, np.ndarray))]
