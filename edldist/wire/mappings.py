"""The reader's side of shared memory: a peer's slabs, mapped, and what is copied from memory it lends."""

from __future__ import annotations

import mmap
import os
import weakref
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from edldist.errors import SharedMemoryError, WireError
from edldist.wire.memfile import FileAddress, open_file
from edldist.wire.slabs import DATA_START, Descriptors
from edldist.wire.spares import Spares

__all__ = ["Mappings"]

_MOST_SLABS = 16
_MOST_LENT = 2


class Mappings:
    """What one peer's references lead to. Owned by the thread of its poller; frames may go anywhere.

    Slabs are mapped to be written to: a message's frames belong to the reader alone until it drops
    the last of them, which is when the slab is released. Lent memory is in use by others (a
    training loop's batch, new for each one): it is copied, by reading its file, because mapping so many
    new pages costs more than copying them.

    The most recent files are kept open, because a peer comes back to its slabs, and to a batch that is
    cut into tasks. A frame keeps its memory, whatever becomes of the peer.
    """

    def __init__(self, descriptors: Descriptors) -> None:
        self._descriptors = descriptors
        self._slabs: OrderedDict[tuple[int, int], mmap.mmap] = OrderedDict()
        self._lent: OrderedDict[tuple[int, int], int] = OrderedDict()  # descriptors
        self._spares = Spares()

    def __len__(self) -> int:
        return len(self._slabs) + len(self._lent)

    def slab(self, address: FileAddress, generation: int) -> NDArray[np.uint8]:
        """All bytes of a slab; the writer learns when nothing refers to them any more.

        Raises:
            SharedMemoryError: it cannot be mapped.
        """
        key = (address.device, address.inode)  # while it is mapped, its inode belongs to no other file
        mapping = self._slabs.get(key)
        if mapping is None:
            mapping = self._slabs[key] = self._map(address)
            self._trim_slabs(_MOST_SLABS)
        self._slabs.move_to_end(key)
        memory: NDArray[np.uint8] = np.frombuffer(mapping, np.uint8)
        words = memoryview(mapping)[:16].cast("Q")
        words[0] = generation
        weakref.finalize(memory, _release, words, generation, os.getpid()).atexit = False
        return memory

    def lent(self, address: FileAddress, start: int, stop: int) -> memoryview:
        """A copy of bytes ``start`` to ``stop`` of memory that the peer lends.

        Raises:
            SharedMemoryError: it cannot be opened; ``gone`` if the peer has freed it.
            WireError: it is shorter.
        """
        key = (address.device, address.inode)  # while it is open, its inode belongs to no other file
        fd = self._lent.get(key)
        if fd is None:
            fd, _ = self._open(address, sealed=False)
            self._lent[key] = fd
            self._trim_lent(_MOST_LENT)
        self._lent.move_to_end(key)
        size = os.fstat(fd).st_size
        if stop > size:
            raise WireError(f"a reference to bytes {start} to {stop} of {size}")
        frame = self._spares.take(stop - start)
        done = 0
        while done < len(frame):  # one call reads 2 GiB at most
            read = os.preadv(fd, [frame[done:]], start + done)
            if not read:
                raise SharedMemoryError(f"memory that was lent ended at byte {start + done} of {stop}")
            done += read
        return frame

    def close(self) -> None:
        self._trim_slabs(0)
        self._trim_lent(0)

    def _map(self, address: FileAddress) -> mmap.mmap:
        fd, size = self._open(address, sealed=True)
        try:
            if size < DATA_START:
                raise SharedMemoryError(f"a slab of {size} bytes")
            return mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except (OSError, ValueError, SharedMemoryError) as exc:
            self._descriptors.give_back(1)
            if isinstance(exc, SharedMemoryError):
                raise
            raise SharedMemoryError(f"cannot map {size} bytes of a peer: {exc}") from exc
        finally:
            os.close(fd)

    def _open(self, address: FileAddress, *, sealed: bool) -> tuple[int, int]:
        self._descriptors.take(1)
        try:
            return open_file(address, sealed=sealed, writable=sealed)
        except SharedMemoryError:
            self._descriptors.give_back(1)
            raise

    def _trim_slabs(self, most: int) -> None:
        while len(self._slabs) > most:
            self._slabs.popitem(last=False)
            self._descriptors.give_back(1)

    def _trim_lent(self, most: int) -> None:
        while len(self._lent) > most:
            _, fd = self._lent.popitem(last=False)
            os.close(fd)
            self._descriptors.give_back(1)


def _release(words: memoryview, generation: int, pid: int) -> None:
    """Tell the writer; not from a forked child, whose copies of the frames end while ours are read."""
    if os.getpid() == pid:
        words[1] = generation
