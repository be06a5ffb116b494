"""A memory file that holds one message or batch at a time, as its writer sees it.

States of a slab::

    free --filled--> under way, generation g --received: g--> with the reader --released: g--> free
                                                                     |
                                                                     +-- released: g, never again --> spent

``received`` and ``released`` are the first two words of the file, and are the reader's to write. What is
spent is not filled any more: somebody else may still look at it.
"""

from __future__ import annotations

import mmap
import os
import weakref

import numpy as np
from numpy.typing import NDArray

from edldist.errors import SharedMemoryError
from edldist.wire.shm.memfile import address_of, make_file

__all__ = ["DATA_START", "NEVER_AGAIN", "Slab"]

DATA_START = 4096
"""Where a slab's data begins, after the page with the two words."""

NEVER_AGAIN = 1 << 63
"""Beside a generation that is released: the writer is to let go of the slab, and fill another."""


class Slab:
    """One memory file and this process's mapping of it: two descriptors.

    Attributes:
        generation: numbers what it holds, or held last.
        data: all bytes for what it holds.
        lent_at: when it was filled, in seconds of its pool's clock.

    Raises:
        SharedMemoryError: the system has no memory or descriptors left for it.
    """

    def __init__(self, size: int) -> None:
        fd = make_file(DATA_START + size)
        try:
            mapping = mmap.mmap(fd, DATA_START + size)
        except (OSError, ValueError) as exc:
            os.close(fd)
            raise SharedMemoryError(f"cannot map {size} bytes: {exc}") from exc
        self.fd = fd
        self.size = size
        self.address = address_of(fd)
        self.generation = 0
        self.lent_at = 0.0
        self.words = memoryview(mapping)[:16].cast("Q")
        self.data: NDArray[np.uint8] = np.frombuffer(mapping, np.uint8, size, DATA_START)
        self._mapping = mapping
        self._holder: weakref.ref[NDArray[np.uint8]] | None = None

    @property
    def released(self) -> int:
        """The newest generation that the reader is done with."""
        return self.words[1] & ~NEVER_AGAIN

    @property
    def free(self) -> bool:
        """Whether it may be filled: neither the reader nor this process uses what it holds."""
        return self.words[1] == self.generation and not self.held

    @property
    def spent(self) -> bool:
        """Whether the reader has said that it may not be filled again."""
        return bool(self.words[1] & NEVER_AGAIN)

    @property
    def held(self) -> bool:
        """Whether this process still refers to what it holds."""
        return self._holder is not None and self._holder() is not None

    @property
    def known(self) -> bool:
        """Whether the reader has ever mapped it."""
        return self.words[0] != 0

    @property
    def under_way(self) -> bool:
        """Whether something is in it that the reader has not received."""
        return self.released != self.generation and self.words[0] != self.generation

    def hold(self, nbytes: int) -> NDArray[np.uint8]:
        """Its first bytes, for somebody in this process; it is not free until nobody refers to them."""
        # An array of its own for each use, whose end can be waited for.
        memory: NDArray[np.uint8] = np.frombuffer(self._mapping, np.uint8, nbytes, DATA_START)
        self._holder = weakref.ref(memory)
        return memory

    def take_back(self) -> None:
        """What it holds was not sent."""
        self.generation = self.released

    def close(self) -> None:
        """The reader's mapping stays valid as long as it likes."""
        os.close(self.fd)
