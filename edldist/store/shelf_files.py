"""The labels of one recipe that lie in files: which there are, where each key lies, and which are damaged."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time

import numpy as np

from edldist.checkpoint.manifest import DamagedError
from edldist.store.folder import ShelfFolder
from edldist.store.index_file import ShardEntry
from edldist.store.kept_rows import KeptRows, Numbers
from edldist.store.key_index import KeyIndex
from edldist.store.sample_key import Keys
from edldist.store.shard import Shard

__all__ = ["ShelfFiles"]

logger = logging.getLogger(__name__)

_SAMPLE_BITS = 32


class ShelfFiles:
    """Files of labels, asked by key.

    ``find`` and ``kept`` are called under the lock of the shelf; all else by one thread, which takes that
    lock where it changes what they see, and never while it waits for the disk.

    Args:
        folder: where the files lie.
        lock: of the shelf.

    Attributes:
        damaged: files that were not what was written.
        stored_bytes: of all files that are known.
    """

    def __init__(self, folder: ShelfFolder, lock: threading.RLock) -> None:
        self.folder = folder
        self.damaged = self.stored_bytes = 0
        self._lock = lock
        self._index = KeyIndex()
        # Invariant: _numbers and _shards hold the same shards, the one by file name, the other by number.
        self._shards: dict[int, Shard] = {}
        self._numbers: dict[str, int] = {}
        self._broken: set[str] = set()
        self._used: set[int] = set()
        self._next = 0
        self._seen: tuple[object, ...] | None = None

    @property
    def samples(self) -> int:
        """How many keys lie in the files."""
        return self._index.keys

    @property
    def nbytes(self) -> int:
        """Memory that the index takes, in bytes."""
        return self._index.nbytes

    def find(self, keys: Keys) -> tuple[Numbers, Numbers]:
        """File and sample of each key, the file -1 where it is not there: two int64 [n]."""
        places = self._index.find(keys)
        return places >> _SAMPLE_BITS, places & ((1 << _SAMPLE_BITS) - 1)

    def kept(self, number: int, samples: Numbers) -> KeptRows | None:
        """The labels of a file, of which these samples are about to be used.

        Returns:
            None if they are damaged, or cannot be read: the file is left out from now on.
        """
        shard = self._shards[number]
        try:
            shard.check(samples)
        except (DamagedError, OSError) as exc:
            self._leave_out(number, exc)
            return None
        self._used.add(number)
        return shard.kept()

    def refresh(self) -> None:
        """Take in files that came, also from other processes, and let go of those that went.

        Raises:
            OSError: the folder cannot be read.
            StoreError: it is of another revision.
        """
        state = self.folder.state()
        if state == self._seen:
            return
        self._seen = state
        entries = self.folder.entries()
        for name in entries:
            if name not in self._numbers and name not in self._broken:
                self.load(name)
        for name in set(self._numbers) - entries.keys():
            if not (self.folder.path / name).exists():
                self.forget(name)

    def load(self, name: str) -> None:
        """Take in one file; one that is damaged is counted and left out."""
        try:
            shard = self.folder.open(name)
            kept = shard.kept()
        except FileNotFoundError:
            return  # evicted by another process since it was listed
        except DamagedError as exc:
            self._broken_file(name, exc)
            return
        except OSError as exc:
            logger.warning("labels in %s cannot be read, and are left out: %s", self.folder.path / name, exc)
            return
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._shards[number] = shard
            self._numbers[name] = number
            self.stored_bytes += shard.nbytes
            self._index.put(kept.keys, np.arange(shard.samples) | (number << _SAMPLE_BITS))

    def forget(self, name: str) -> None:
        """A file is gone; who has found labels in it keeps them."""
        with self._lock:
            number = self._numbers.pop(name)
            shard = self._shards.pop(number)
            self._used.discard(number)
            self.stored_bytes -= shard.nbytes
            with contextlib.suppress(DamagedError, OSError):
                places = np.arange(shard.samples) | (number << _SAMPLE_BITS)
                self._index.drop(shard.kept().keys, places)

    def add(self, kept: KeptRows) -> ShardEntry:
        """Write labels into a file, and find them there from now on.

        Raises:
            OSError: the disk did not take it.
        """
        entry = self.folder.add(kept)
        self.load(entry.file)
        return entry

    def mark_used(self) -> None:
        """Tell other processes which files were used: eviction goes by the time of a file's last use."""
        with self._lock:
            names = [self._shards[number].path for number in self._used]
            self._used.clear()
        now = time.time()
        for path in names:
            with contextlib.suppress(OSError):  # gone, or a read-only disk, which nothing is evicted from
                os.utime(path, (now, now))

    def set_aside_broken(self) -> None:
        """Move damaged files where nobody meets them again.

        Raises:
            OSError: they cannot be moved.
        """
        with self._lock:
            broken = sorted(self._broken)
        for name in broken:
            if (self.folder.path / name).exists():
                self.folder.set_aside(name)

    def _leave_out(self, number: int, exc: Exception) -> None:
        name = self._shards[number].path.name
        if isinstance(exc, DamagedError):
            self._broken_file(name, exc)
        elif not isinstance(exc, FileNotFoundError):
            logger.warning("labels in %s cannot be read, and are left out: %s", self.folder.path / name, exc)
        self.forget(name)

    def _broken_file(self, name: str, exc: DamagedError) -> None:
        self.damaged += 1
        self._broken.add(name)
        logger.warning(
            "kept labels are damaged, and are computed anew: %s. The file is moved to %s/damaged, where it "
            "may be removed",
            *(exc, self.folder.path),
        )
