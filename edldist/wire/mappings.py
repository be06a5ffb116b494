"""The reader's side of shared memory: mappings of a peer's files, and frames that lie in them."""

from __future__ import annotations

import contextlib
import mmap
import os
import weakref
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from edldist.errors import SharedMemoryError
from edldist.wire.memfile import FileAddress, open_file
from edldist.wire.slabs import DATA_START, Descriptors

__all__ = ["Mappings"]

_MOST_SLABS = 16
_MOST_LENT = 2
_MOST_LENT_BYTES = 512 << 20
_MADV_POPULATE_READ = 22  # Linux 5.14; maps a range at once instead of page by page


class Mappings:
    """What one peer's references lead to. Owned by the thread of its poller; frames may go anywhere.

    Slabs are mapped to be written to: a message's frames belong to the reader alone until it drops
    the last of them, which is when the slab is released. Lent memory is in use by others (a
    training loop's batch), and is mapped to be read only.

    The most recent mappings are kept, because a peer comes back to its slabs, and to a batch that is
    cut into tasks. A frame keeps its mapping, and so its memory, whatever becomes of the peer. Keeping
    takes a descriptor; without one to spare a file is mapped again for every message, so that a process
    with few of them is slow and loses nothing.
    """

    def __init__(self, descriptors: Descriptors) -> None:
        self._descriptors = descriptors
        self._slabs: OrderedDict[tuple[int, int], mmap.mmap] = OrderedDict()
        self._lent: OrderedDict[tuple[int, int], mmap.mmap] = OrderedDict()

    def __len__(self) -> int:
        return len(self._slabs) + len(self._lent)

    def slab(self, address: FileAddress, generation: int) -> NDArray[np.uint8]:
        """All bytes of a slab; the writer learns when nothing refers to them any more.

        Raises:
            SharedMemoryError: it cannot be mapped.
        """
        mapping = self._recent(self._slabs, address)
        if mapping is None:
            mapping = self._map(address, sealed=True)
            if len(mapping) < DATA_START:
                raise SharedMemoryError(f"a slab of {len(mapping)} bytes")
            self._keep(self._slabs, address, mapping, _MOST_SLABS)
        memory: NDArray[np.uint8] = np.frombuffer(mapping, np.uint8)
        words = memoryview(mapping)[:16].cast("Q")
        words[0] = generation
        weakref.finalize(memory, _release, words, generation, os.getpid()).atexit = False
        return memory

    def lent(self, address: FileAddress, start: int, stop: int) -> NDArray[np.uint8]:
        """All bytes of memory that the peer lends, of which ``start`` to ``stop`` are wanted.

        Raises:
            SharedMemoryError: it cannot be mapped, or is shorter; ``gone`` if the peer has freed it.
        """
        mapping = self._recent(self._lent, address)
        if mapping is None:
            mapping = self._map(address, sealed=False)
            if stop <= len(mapping):
                page = mmap.PAGESIZE
                begin = start // page * page
                with contextlib.suppress(OSError):
                    mapping.madvise(_MADV_POPULATE_READ, begin, stop - begin)
            self._keep(self._lent, address, mapping, _MOST_LENT)
            while len(self._lent) > 1 and sum(map(len, self._lent.values())) > _MOST_LENT_BYTES:
                self._trim(self._lent, len(self._lent) - 1)
        memory: NDArray[np.uint8] = np.frombuffer(mapping, np.uint8)
        return memory

    def close(self) -> None:
        self._trim(self._slabs, 0)
        self._trim(self._lent, 0)

    @staticmethod
    def _map(address: FileAddress, *, sealed: bool) -> mmap.mmap:
        fd, size = open_file(address, sealed=sealed, writable=sealed)
        access = mmap.PROT_READ | (mmap.PROT_WRITE if sealed else 0)
        try:
            return mmap.mmap(fd, size, mmap.MAP_SHARED, access)
        except (OSError, ValueError) as exc:
            raise SharedMemoryError(f"cannot map {size} bytes of a peer: {exc}") from exc
        finally:
            os.close(fd)

    @staticmethod
    def _recent(kept: OrderedDict[tuple[int, int], mmap.mmap], address: FileAddress) -> mmap.mmap | None:
        # While it is mapped its inode belongs to no other file.
        key = (address.device, address.inode)
        mapping = kept.get(key)
        if mapping is not None:
            kept.move_to_end(key)
        return mapping

    def _keep(
        self,
        kept: OrderedDict[tuple[int, int], mmap.mmap],
        address: FileAddress,
        mapping: mmap.mmap,
        most: int,
    ) -> None:
        self._trim(kept, most - 1)
        if self._descriptors.left:
            self._descriptors.take(1)
            kept[(address.device, address.inode)] = mapping

    def _trim(self, kept: OrderedDict[tuple[int, int], mmap.mmap], most: int) -> None:
        while len(kept) > most:
            kept.popitem(last=False)
            self._descriptors.give_back(1)


def _release(words: memoryview, generation: int, pid: int) -> None:
    """Tell the writer; not from a forked child, whose copies of the frames end while ours are read."""
    if os.getpid() == pid:
        words[1] = generation
