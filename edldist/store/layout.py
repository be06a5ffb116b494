"""How rows of kept labels look: the tensors that a codec sent, each cut into rows of bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from edldist.errors import StoreError
from edldist.wire.messages import TensorSpec

__all__ = ["ITEM_BYTES", "Column", "Layout", "layout_of", "specs_of"]

ITEM_BYTES = {
    **{"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2},
    **{"float8_e4m3fn": 1, "float8_e4m3fnuz": 1, "float8_e5m2": 1, "float8_e5m2fnuz": 1},
    **{"int64": 8, "int32": 4, "int16": 2, "int8": 1},
    **{"uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1, "bool": 1},
}
"""Bytes of an element, by the wire name of its dtype (``edldist.wire.tensors.DTYPES``, without torch)."""


class Column(NamedTuple):
    """One tensor of labels: its name, dtype, and the shape of a row."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


Layout: TypeAlias = tuple[Column, ...]
"""By name, so that workers may name their tensors in any order."""


def layout_of(specs: Iterable[TensorSpec]) -> Layout:
    """The layout of tensors whose first dimension is the rows.

    Raises:
        StoreError: a dtype that is unknown, a name that came twice, or no rows.
    """
    columns = []
    for spec in specs:
        if spec.dtype not in ITEM_BYTES or not spec.shape:
            raise StoreError(f"labels {spec.name!r} of {spec.dtype}{spec.shape} cannot be kept")
        columns.append(Column(spec.name, spec.dtype, tuple(spec.shape[1:])))
    if not columns or len({column.name for column in columns}) != len(columns):
        raise StoreError(f"labels {[column.name for column in columns]} cannot be kept: names come once each")
    return tuple(sorted(columns))


def specs_of(layout: Sequence[Column], rows: int) -> list[TensorSpec]:
    """What so many rows look like in a message."""
    return [TensorSpec(name=name, dtype=dtype, shape=[rows, *shape]) for name, dtype, shape in layout]
