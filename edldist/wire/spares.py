"""Memory for large frames that is used again: fresh pages cost as much as the copy into them."""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

__all__ = ["Spares"]

_MOST_SPARE = 4
_MOST_SPARE_BYTES = 256 << 20


class Spares:
    """Blocks that come back by themselves when nobody refers to a frame in them any more.

    Taken by one thread; frames may end in any.
    """

    def __init__(self) -> None:
        self._free: deque[NDArray[np.uint8]] = deque()

    def __len__(self) -> int:
        return len(self._free)

    def take(self, nbytes: int) -> memoryview:
        """``nbytes`` bytes of whatever content, for their user alone."""
        block = self._fitting(nbytes)
        array = block[:nbytes]
        weakref.finalize(array, self._give_back, block).atexit = False
        return array.data

    def _fitting(self, nbytes: int) -> NDArray[np.uint8]:
        for _ in range(len(self._free)):
            block = self._free.popleft()
            if nbytes <= block.nbytes <= 2 * nbytes:
                return block
            self._free.append(block)
        return np.empty(nbytes, np.uint8)

    def _give_back(self, block: NDArray[np.uint8]) -> None:
        free = list(self._free)
        if len(free) >= _MOST_SPARE and free:
            self._free.popleft()  # sizes change: the oldest may fit nothing any more
        if sum(each.nbytes for each in free) + block.nbytes <= _MOST_SPARE_BYTES:
            self._free.append(block)
