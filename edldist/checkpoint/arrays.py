"""Numpy arrays and scalars as text: exactly what they are, or a refusal."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from edldist.errors import CheckpointError

__all__ = ["array_fields", "array_of", "scalar_of"]


def array_fields(value: np.ndarray[Any, Any] | np.generic, path: str) -> list[Any]:
    """Describe an array or a scalar: its dtype, its shape, and its bytes in C order as base64.

    Args:
        value: of any dtype that its own description gives back, structured ones too.
        path: names it in errors.

    Raises:
        CheckpointError: it is of a subclass (masked, record, memory-mapped, matrix, ...), of objects, or of
            a dtype that cannot be written down; all of these would come back as something else.
    """
    kind, dtype = type(value), value.dtype
    if kind is not np.ndarray and kind is not dtype.type:
        raise CheckpointError(
            f"{path} is a {kind.__module__}.{kind.__qualname__}, of which a checkpoint would keep a part "
            "only: return plain numpy arrays from state_dict(), for a masked one its data and its mask"
        )
    described = _described(dtype)
    if described is None:
        raise CheckpointError(
            f"{path} has the numpy dtype {dtype!r}, which no checkpoint can hold: return numbers, strings or "
            "plain records of these"
        )
    fields = [described, list(value.shape), base64.b64encode(value.tobytes()).decode()]
    if kind in (np.str_, np.bytes_) and scalar_of(fields) != value:
        raise CheckpointError(f"{path} is a numpy string that ends in zeros, which get lost: use str")
    return fields


def array_of(fields: Any) -> np.ndarray[Any, Any]:
    """The array that `array_fields` described; it owns its memory and can be written to."""
    described, shape, data = fields
    dtype = np.dtype(described) if isinstance(described, str) else np.lib.format.descr_to_dtype(described)
    return np.ndarray(shape, dtype, buffer=base64.b64decode(data)).copy()


def scalar_of(fields: Any) -> Any:
    """The scalar that `array_fields` described."""
    return array_of(fields)[()]


def _described(dtype: np.dtype[Any]) -> Any:
    """What numpy makes this very dtype of again, or None."""
    if dtype.hasobject or dtype.metadata is not None:
        return None
    try:
        if dtype.fields is None:
            return dtype.str if np.dtype(dtype.str) == dtype else None
        described = np.lib.format.dtype_to_descr(dtype)
        again = np.lib.format.descr_to_dtype(described)
    except (TypeError, ValueError):  # overlapping fields; dtypes of other libraries
        return None
    return described if again == dtype and again.type is dtype.type else None
