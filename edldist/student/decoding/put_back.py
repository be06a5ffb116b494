"""Labels of some positions, put back to where they belong in a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edldist.errors import LabelError
from edldist.student.memory.structure import mapped

__all__ = ["MASK", "check_no_mask", "put_back"]

MASK = "mask"
"""What the loop finds beside labels that may be missing at some positions: where there are some."""


def check_no_mask(labels: Mapping[str, Any], teacher: str) -> None:
    """Raises:
    LabelError: the teacher has an output of the name under which masks come.
    """
    if MASK in labels:
        raise LabelError(
            f"teacher {teacher!r} has an output {MASK!r}, under which labels say where there are some: "
            "choose its outputs without it (--outputs), or rename it"
        )


def put_back(labels: Mapping[str, Any], places: Tensor, teacher: str) -> dict[str, Any]:
    """Labels at their positions, and where these are, under ``MASK``.

    Args:
        labels: by output: tensors [N, ...], or data classes of such.
        places: int64, for each position the row of its labels, or -1.

    Returns:
        [*places.shape, ...], NaN (of integers 0, of bools False) where a position has none: whoever leaves
        the mask out shall notice.

    Raises:
        LabelError: the teacher has an output of that name.
    """
    check_no_mask(labels, teacher)
    mask = places >= 0
    index = places.clamp(min=0).reshape(-1)

    def back(rows: Tensor) -> Tensor:
        shape, fill = (*places.shape, *rows.shape[1:]), torch.nan if rows.is_floating_point() else 0
        if not rows.shape[0]:
            return rows.new_full(shape, fill)
        # No index by a mask: its size depends on values, for which a device would have to be waited for.
        whole = rows.index_select(0, index).reshape(shape)
        return whole.masked_fill_(~mask.reshape(*mask.shape, *(1,) * (rows.ndim - 1)), fill)

    return {output: mapped(value, back) for output, value in labels.items()} | {MASK: mask}
