"""The reader's side of shared memory: mappings of a peer's files, and frames that lie in them."""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os
import weakref
from collections import OrderedDict
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from edldist.errors import SharedMemoryError
from edldist.wire.shm.allowance import Allowance
from edldist.wire.shm.memfile import FileAddress, open_file
from edldist.wire.shm.slabs import DATA_START

__all__ = ["Mappings"]

_MOST_SLABS = 16
_MOST_LENT = 64
_MOST_LENT_BYTES = 512 << 20  # what is mapped stays in memory, though its owner has freed it
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
    cut into tasks; what the current message uses is kept whatever its number and size. A frame keeps
    its mapping, and so its memory, whatever becomes of the peer. Keeping takes a descriptor; without
    one to spare a file is mapped again for every message, so that a process with few of them is slow
    and loses nothing.
    """

    def __init__(self, allowance: Allowance) -> None:
        self._slabs: _Recent[mmap.mmap] = _Recent(allowance, _MOST_SLABS)
        self._lent: _Recent[_LentMapping] = _Recent(allowance, _MOST_LENT, _MOST_LENT_BYTES)

    def __len__(self) -> int:
        return len(self._slabs) + len(self._lent)

    def next_message(self) -> None:
        """What is asked for from now on belongs to another message."""
        self._slabs.message += 1
        self._lent.message += 1

    def slab(self, address: FileAddress, generation: int) -> NDArray[np.uint8]:
        """All bytes of a slab; the writer learns when nothing refers to them any more.

        Raises:
            SharedMemoryError: it cannot be mapped.
        """
        mapping = self._slabs.get(address)
        if mapping is None:
            mapping = _map(address, sealed=True)
            if len(mapping) < DATA_START:
                raise SharedMemoryError(f"a slab of {len(mapping)} bytes")
            self._slabs.keep(address, mapping)
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
        lent = self._lent.get(address)
        if lent is None or not lent.is_unread(start, stop):
            lent = _LentMapping(_map(address, sealed=False))
            self._lent.keep(address, lent)
        lent.read(start, stop)
        memory: NDArray[np.uint8] = np.frombuffer(lent.mapping, np.uint8)
        return memory

    def close(self) -> None:
        self._slabs.clear()
        self._lent.clear()


class _LentMapping:
    """A private mapping of a file that a peer lends, and which parts of it may have been written to here."""

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


_Kept = TypeVar("_Kept", mmap.mmap, _LentMapping)


class _Recent(Generic[_Kept]):
    """The most recently used mappings of one kind.

    Args:
        most: how many are kept, beside those of the current message.
        most_bytes: of all, beside those of the current message.
    """

    def __init__(self, allowance: Allowance, most: int, most_bytes: float = math.inf) -> None:
        self.message = 0
        self._allowance = allowance
        self._most = most
        self._most_bytes = most_bytes
        # A mapping and the message that used it last, by device and inode.
        # Invariant: what was used longest ago comes first; each has taken a descriptor of the allowance.
        self._kept: OrderedDict[tuple[int, int], tuple[_Kept, int]] = OrderedDict()
        self._bytes = 0  # Invariant: of all in _kept

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, address: FileAddress) -> _Kept | None:
        key = _key(address)
        if key not in self._kept:
            return None
        mapping, _ = self._kept[key]
        self._kept[key] = mapping, self.message
        self._kept.move_to_end(key)
        return mapping

    def keep(self, address: FileAddress, mapping: _Kept) -> None:
        """Keep a mapping if that can be, and let go of older ones for it."""
        self._drop(_key(address))
        for key, (_, used_by) in list(self._kept.items()):
            fits = len(self._kept) < self._most and self._bytes + len(mapping) <= self._most_bytes
            if fits or used_by == self.message:
                break
            self._drop(key)
        with contextlib.suppress(SharedMemoryError):
            self._allowance.take(1)
            self._kept[_key(address)] = mapping, self.message
            self._bytes += len(mapping)

    def clear(self) -> None:
        for key in list(self._kept):
            self._drop(key)

    def _drop(self, key: tuple[int, int]) -> None:
        if key in self._kept:
            self._bytes -= len(self._kept.pop(key)[0])
            self._allowance.give_back(1)


def _key(address: FileAddress) -> tuple[int, int]:
    # While it is mapped its inode belongs to no other file.
    return address.device, address.inode


def _map(address: FileAddress, *, sealed: bool) -> mmap.mmap:
    fd, size = open_file(address, sealed=sealed, writable=sealed)
    kind = mmap.MAP_SHARED if sealed else mmap.MAP_PRIVATE | _MAP_NORESERVE
    try:
        return mmap.mmap(fd, size, kind, mmap.PROT_READ | mmap.PROT_WRITE)
    except (OSError, ValueError) as exc:
        raise SharedMemoryError(f"cannot map {size} bytes of a peer: {exc}") from exc
    finally:
        os.close(fd)


def _release(words: memoryview, generation: int, pid: int) -> None:
    """Tell the writer; not from a forked child, whose copies of the frames end while ours are read."""
    if os.getpid() == pid:
        words[1] = generation
