"""The sender's side of shared memory: slabs for one reader, each of which holds one message at a time.

A pool belongs to one reader. Nothing that one reader maps is ever reused for another, so a reader
that is frozen, and thaws when it was long replaced, can neither spoil nor free what others read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from edldist.errors import SharedMemoryError
from edldist.wire.shm.allowance import Allowance
from edldist.wire.shm.memfile import FileAddress
from edldist.wire.shm.slab import DATA_START, Slab
from edldist.wire.transport import Buffer

__all__ = ["Placed", "SlabPool"]

logger = logging.getLogger(__name__)

_ALIGNMENT = 64
_MOST_SLABS = 8
_MOST_BYTES = 512 << 20
_ABANDON_S = 30.0
_DESCRIPTORS = 2  # of a slab: its file and its mapping

Placed = tuple[FileAddress, int, list[int]]
"""A slab's address, the generation of its message, and where each frame begins."""


class SlabPool:
    """The slabs of one reader. Owned by the thread of its poller.

    Never blocks, and is bounded in number and bytes, as are all pools of the process together
    (``Allowance``): when nothing is free, ``put`` says so and the message goes by socket. A message that
    was lost with its connection would occupy its slab for ever: it is given up once the reader has
    released a later one and half a minute has passed. The reader may still hold it; its memory is not
    used again.

    Args:
        most_slabs: how many there may be.
        most_bytes: of all of them.
    """

    def __init__(
        self,
        allowance: Allowance,
        clock: Callable[[], float] = time.monotonic,
        most_slabs: int = _MOST_SLABS,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self._allowance = allowance
        self._clock = clock
        self._most_slabs = most_slabs
        self._most_bytes = most_bytes
        # Invariant: each of them has taken two descriptors and its size from the allowance.
        self._slabs: list[Slab] = []
        self._generation = 0

    def __len__(self) -> int:
        return len(self._slabs)

    @property
    def nbytes(self) -> int:
        return sum(slab.size for slab in self._slabs)

    def put(self, frames: Sequence[Buffer]) -> Placed | None:
        """Copy frames into a free slab; None when there is none and none may be made.

        Raises:
            SharedMemoryError: the system has no memory or descriptors left.
        """
        starts, end = [], DATA_START
        for frame in frames:
            starts.append(end)
            end += -(-memoryview(frame).nbytes // _ALIGNMENT) * _ALIGNMENT
        slab = self.reserve(end - DATA_START)
        if slab is None:
            return None
        for frame, start in zip(frames, starts, strict=True):
            bytes_ = np.frombuffer(frame, np.uint8)
            # numpy copies without the interpreter lock, which the training loop may want.
            slab.data[start - DATA_START : start - DATA_START + bytes_.nbytes] = bytes_
        return slab.address, slab.generation, starts

    def reserve(self, nbytes: int) -> Slab | None:
        """A free slab, under a generation of its own, for the caller to fill; None as of ``put``.

        Raises:
            SharedMemoryError: as of ``put``.
        """
        slab = self._find(nbytes)
        if slab is not None:
            self._generation += 1
            slab.generation = self._generation
            slab.lent_at = self._clock()
        return slab

    def take_back(self, placed: Placed) -> None:
        """Free the slab of a message that could not be sent."""
        for slab in self._slabs:
            if slab.generation == placed[1]:
                slab.take_back()

    @property
    def under_way(self) -> bool:
        """Whether a message was sent that the reader has not received."""
        return any(slab.under_way for slab in self._slabs)

    def close(self) -> None:
        """What the reader has received stays valid; what is under way will be gone."""
        while self._slabs:
            self._drop(self._slabs[-1])

    def _find(self, size: int) -> Slab | None:
        for slab in [slab for slab in self._slabs if slab.spent]:
            self._drop(slab)
        fitting = [slab for slab in self._slabs if slab.size >= size and slab.free]
        if fitting:
            return min(fitting, key=lambda slab: slab.size)
        size = _rounded(size)
        if size > self._most_bytes:
            return None
        if not self._has_room(size):
            self._abandon()
            # Free ones are all too small.
            for slab in [slab for slab in self._slabs if slab.free]:
                if not self._has_room(size):
                    self._drop(slab)
        if not self._has_room(size):
            return None
        slab = self._make(size)
        self._slabs.append(slab)
        return slab

    def _make(self, size: int) -> Slab:
        # Where the process has no more memory to give, free slabs of this pool, all too small, go first.
        unused = [slab for slab in self._slabs if slab.free]
        while True:
            try:
                self._allowance.take(_DESCRIPTORS, size)
                break
            except SharedMemoryError:
                if not unused:
                    raise
                self._drop(unused.pop())
        try:
            return Slab(size)
        except SharedMemoryError:
            self._allowance.give_back(_DESCRIPTORS, size)
            raise

    def _has_room(self, size: int) -> bool:
        return len(self._slabs) < self._most_slabs and self.nbytes + size <= self._most_bytes

    def _abandon(self) -> None:
        newest = max((slab.released for slab in self._slabs), default=0)
        now = self._clock()
        for slab in list(self._slabs):
            lost = not slab.free and not slab.held and slab.generation < newest
            if lost and now - slab.lent_at > _ABANDON_S:
                logger.debug("message %d was lost with its slab of %d bytes", slab.generation, slab.size)
                self._drop(slab)

    def _drop(self, slab: Slab) -> None:
        self._slabs.remove(slab)
        slab.close()
        self._allowance.give_back(_DESCRIPTORS, slab.size)


def _rounded(size: int) -> int:
    """Tasks differ a little in size; slabs that differ as little would not be used again."""
    step = 1 << 20 if size > 1 << 20 else 64 << 10
    return -(-size // step) * step
