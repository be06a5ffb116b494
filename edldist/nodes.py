"""How many nodes a student's group may have."""

from __future__ import annotations

import re

__all__ = ["node_range"]


def node_range(nnodes: str) -> tuple[int, int]:
    """The least and the most nodes of ``"2"`` or ``"1:4"``.

    Raises:
        ValueError: the text has another form, or its bounds make no sense.
    """
    match = re.fullmatch(r"(\d{1,6})(?::(\d{1,6}))?", nnodes)
    if match is None:
        raise ValueError('write a number of nodes, as in "1", or a range, as in "1:4"')
    least = int(match[1])
    most = int(match[2]) if match[2] else least
    if not 1 <= least <= most:
        raise ValueError("the bounds must satisfy 1 <= MIN <= MAX")
    return least, most
