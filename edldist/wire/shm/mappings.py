"""The reader's side of shared memory: mappings of a peer's files, and frames that lie in them."""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections import OrderedDict
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edldist.errors import SharedMemoryError
from edldist.wire.shm.memfile import FileAddress, open_file
from edldist.wire.shm.slabs import DATA_START, Descriptors

__all__ = ["Mappings"]

_MOST_SLABS = 16
_MOST_LENT = 2
_MOST_LENT_BYTES = 512 << 20
_MAP_NORESERVE = 0x4000  # pages that are only read need no promise of memory
_MADV_POPULATE_READ = 22  # Linux 5.14; maps a range at once instead of page by page


# mmap's own method keeps the interpreter lock, which the compute thread wants. It may fail: pages are then
# mapped one by one as they are read.
_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Mappings:
    """What one peer's references lead to. Owned by the thread of its poller; frames may go anywhere.

    Slabs are mapped to be written to: a message's frames belong to the reader alone until it drops
    the last of them, which is when the slab is released. Lent memory is in use by others (a
    training loop's batch), and is mapped privately: a page that the reader writes to, because a model
    changes its inputs in place, becomes the reader's own.

    The most recent mappings are kept, because a peer comes back to its slabs, and to a batch that is
    cut into tasks. A frame keeps its mapping, and so its memory, whatever becomes of the peer. Keeping
    takes a descriptor; without one to spare a file is mapped again for every message, so that a process
    with few of them is slow and loses nothing.
    """

    def __init__(self, descriptors: Descriptors) -> None:
        self._descriptors = descriptors
        self._slabs: OrderedDict[tuple[int, int], mmap.mmap] = OrderedDict()
        self._lent: OrderedDict[tuple[int, int], _Private] = OrderedDict()

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

        What the reader writes stays its own.

        Raises:
            SharedMemoryError: it cannot be mapped, or is shorter; ``gone`` if the peer has freed it.
        """
        private = self._recent(self._lent, address)
        if private is None or not private.is_unread(start, stop):
            private = _Private(self._map(address, sealed=False))
            self._keep(self._lent, address, private, _MOST_LENT)
            while len(self._lent) > 1 and sum(map(len, self._lent.values())) > _MOST_LENT_BYTES:
                self._trim(self._lent, len(self._lent) - 1)
        private.read(start, stop)
        memory: NDArray[np.uint8] = np.frombuffer(private.mapping, np.uint8)
        return memory

    def close(self) -> None:
        self._trim(self._slabs, 0)
        self._trim(self._lent, 0)

    @staticmethod
    def _map(address: FileAddress, *, sealed: bool) -> mmap.mmap:
        fd, size = open_file(address, sealed=sealed, writable=sealed)
        kind = mmap.MAP_SHARED if sealed else mmap.MAP_PRIVATE | _MAP_NORESERVE
        try:
            return mmap.mmap(fd, size, kind, mmap.PROT_READ | mmap.PROT_WRITE)
        except (OSError, ValueError) as exc:
            raise SharedMemoryError(f"cannot map {size} bytes of a peer: {exc}") from exc
        finally:
            os.close(fd)

    @staticmethod
    def _recent(kept: OrderedDict[tuple[int, int], _Kept], address: FileAddress) -> _Kept | None:
        # While it is mapped its inode belongs to no other file.
        key = (address.device, address.inode)
        found = kept.get(key)
        if found is not None:
            kept.move_to_end(key)
        return found

    def _keep(
        self, kept: OrderedDict[tuple[int, int], _Kept], address: FileAddress, new: _Kept, most: int
    ) -> None:
        key = (address.device, address.inode)
        if kept.pop(key, None) is not None:
            self._descriptors.give_back(1)
        self._trim(kept, most - 1)
        if self._descriptors.left:
            self._descriptors.take(1)
            kept[key] = new

    def _trim(self, kept: OrderedDict[tuple[int, int], _Kept], most: int) -> None:
        while len(kept) > most:
            kept.popitem(last=False)
            self._descriptors.give_back(1)


class _Private:
    """A private mapping of lent memory, and the parts of it that may have been written to."""

    def __init__(self, mapping: mmap.mmap) -> None:
        self.mapping = mapping
        self._address: int = np.frombuffer(mapping, np.uint8).ctypes.data
        self._read: dict[int, int] = {}  # start of each part by its end

    def __len__(self) -> int:
        return len(self.mapping)

    def is_unread(self, start: int, stop: int) -> bool:
        return all(stop <= begin or end <= start for end, begin in self._read.items())

    def read(self, start: int, stop: int) -> None:
        self._read[stop] = self._read.pop(start, start)
        if stop <= len(self.mapping):
            first = start // mmap.PAGESIZE * mmap.PAGESIZE
            _madvise(self._address + first, stop - first, _MADV_POPULATE_READ)


_Kept = TypeVar("_Kept", mmap.mmap, _Private)


def _release(words: memoryview, generation: int, pid: int) -> None:
    """Tell the writer; not from a forked child, whose copies of the frames end while ours are read."""
    if os.getpid() == pid:
        words[1] = generation
