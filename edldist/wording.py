"""Numbers in words, for messages."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["in_words"]

_SHOWN = 8


def in_words(numbers: Sequence[int]) -> str:
    """``3..5`` of growing numbers that lie side by side, else ``3, 5, 9`` and how many more."""
    if len(numbers) and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]}..{numbers[-1]}"
    more = len(numbers) - _SHOWN
    return ", ".join(map(str, numbers[:_SHOWN])) + (f" and {more} more" if more > 0 else "")
