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
from edldist.wire.shm.pagemap import look
from edldist.wire.shm.slab import DATA_START

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
    changes its inputs in place, becomes the reader's own. A file with such pages is mapped anew when they
    are to be read again, as it is while somebody still holds what was read there.

    The most recent mappings are kept, because a peer comes back to its slabs, to memory that it fills
    again, and to a batch that is cut into tasks; what the current message uses is kept whatever its number
    and size. A frame keeps its mapping, and so its memory, whatever becomes of the peer. Keeping takes a
    descriptor; without one to spare a file is mapped again for every message, so that a process with few
    of them is slow and loses nothing.
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
        if lent is None or not lent.may_read(start, stop):
            lent = _LentMapping(_map(address, sealed=False))
            self._lent.keep(address, lent)
        return lent.read(start, stop)

    def close(self) -> None:
        self._slabs.clear()
        self._lent.clear()


class _LentMapping:
    """A private mapping of a file that a peer lends: what was written to here is not the peer's any more."""

    def __init__(self, mapping: mmap.mmap) -> None:
        self.mapping = mapping
        self._address: int = np.frombuffer(mapping, np.uint8).ctypes.data
        # What was read and is still held, and which bytes of it are used: whoever holds it may write there.
        self._held: list[tuple[weakref.ref[NDArray[np.uint8]], int, int]] = []
        self._mapped = False  # the part that was looked at last

    def __len__(self) -> int:
        return len(self.mapping)

    def may_read(self, start: int, stop: int) -> bool:
        """Whether some bytes are what the peer has there, and stay so while they are read.

        Pages that a model wrote to in place are this process's own, and stay what they were when the peer
        fills the file again. That is found out page by page, whoever wrote and however.
        """
        if stop > len(self.mapping):
            return True  # there are no such bytes, as whoever asks will see
        self._held = [held for held in self._held if held[0]() is not None]
        if any(start < its_stop and its_start < stop for _, its_start, its_stop in self._held):
            return False
        pages = look(self._address + start, stop - start)
        if pages is None or pages.own:
            return False
        self._mapped = pages.mapped
        return True

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """All bytes, of which some are used."""
        memory: NDArray[np.uint8] = np.frombuffer(self.mapping, np.uint8)
        self._held.append((weakref.ref(memory), start, stop))
        if not self._mapped and stop <= len(self.mapping):
            first = start // mmap.PAGESIZE * mmap.PAGESIZE
            _madvise(self._address + first, stop - first, _MADV_POPULATE_READ)
        self._mapped = False
        return memory


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
