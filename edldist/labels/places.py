"""What rows of labels are called in messages: a sample of a task, or a position of a sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

__all__ = ["Where", "in_samples"]

Where: TypeAlias = Callable[[Sequence[int]], str]
"""From the indices of a row, the samples (or the packed rows of sequences) first, to what it is called."""


def in_samples(index: Sequence[int]) -> str:
    """``sample 3 of the task, position 7`` of rows that are samples."""
    sample, *position = index
    at = position[0] if len(position) == 1 else tuple(position)
    return f"sample {sample} of the task" + (f", position {at}" if position else "")
