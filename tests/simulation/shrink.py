"""From a seed that fails to the few faults that it takes (delta debugging, Zeller and Hildebrandt, 2002)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

__all__ = ["shrink"]


def shrink(numbers: Sequence[int], fails: Callable[[list[int]], bool], within_s: float) -> list[int]:
    """The smallest part of a failing plan that was found to fail.

    Args:
        numbers: of the faults that fail together.
        fails: whether some of them still do.
        within_s: seconds of real time after which the best so far will do.

    Returns:
        Faults that fail together. Without any single one of them they do not, if there was time to try.
    """
    until = time.monotonic() + within_s
    kept = list(numbers)
    if fails([]):
        return []
    parts = 2
    while len(kept) >= 2:
        size = -(-len(kept) // parts)
        for start in range(0, len(kept), size):
            if time.monotonic() > until:
                return kept
            rest = kept[:start] + kept[start + size :]
            if rest and fails(rest):
                kept = rest
                parts = max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts = min(len(kept), 2 * parts)
    return kept
