"""The labels of one recipe that lie in files: which there are, where each key lies, and which are damaged."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from edldist.checkpoint.manifest import DamagedError
from edldist.store.folder import DAMAGED
from edldist.store.index_file import ShardEntry
from edldist.store.kept_rows import KeptRows, Numbers
from edldist.store.key_index import KeyIndex
from edldist.store.place import Place
from edldist.store.sample_key import Keys
from edldist.store.shard import Shard
from edldist.store.small_files import SmallFiles

__all__ = ["ShelfFiles"]

logger = logging.getLogger(__name__)

_SAMPLE_BITS = 32


class ShelfFiles:
    """Files of labels, asked by key.

    ``find`` and ``kept`` are called under the lock of the shelf; all else by one thread, which takes that
    lock where it changes what they see, and never while it waits for the disk.

    Args:
        place: where the files lie.
        lock: of the shelf.
        file_bytes: what a file has at most.

    Attributes:
        damaged: files that were not what was written.
        stored_bytes: of all files that are known.
    """

    def __init__(self, place: Place, lock: threading.RLock, file_bytes: int) -> None:
        self.place = place
        self.damaged = self.stored_bytes = 0
        self._lock = lock
        self._index = KeyIndex()
        # Invariant: _numbers and _shards hold the same shards, the one by file name, the other by number.
        self._shards: dict[int, Shard] = {}
        self._numbers: dict[str, int] = {}
        self._broken: set[str] = set()
        self._withdrawn: dict[str, set[int]] = {}  # samples by file, of files that hold them still
        self._used: set[int] = set()
        self._next = 0
        self._look_at = 0.0
        self._small = SmallFiles(file_bytes)
        self._to_join: list[list[str]] = []
        self._seen: tuple[object, ...] | None = None
        self._prepared = False

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
        try:
            kept = self._shards[number].checked(samples)
        except (DamagedError, OSError) as exc:
            name = self._shards[number].header.name
            self._leave_out(name, exc)
            self.forget(name)
            return None
        self._used.add(number)
        return kept

    def holds(self, keys: Keys, checked: bool) -> NDArray[np.bool_]:
        """Which of these keys lie in files; see ``Shelf.holds``."""
        held: NDArray[np.bool_] = np.zeros(len(keys), np.bool_)
        numbers, samples = self.find(keys)
        for number in np.unique(numbers[numbers >= 0]).tolist():
            at = np.flatnonzero(numbers == number)
            if checked:
                kept = self.kept(number, samples[at])
                there = None if kept is None else kept.keys
            else:
                there = self._keys_of(number)
            if there is not None:
                held[at] = (there[samples[at]] == keys[at]).all(axis=1)
        return held

    def _keys_of(self, number: int) -> Keys | None:
        """The keys of a file; None of one that is not what was written, and left out from now on."""
        try:
            return self._shards[number].keys()
        except (DamagedError, OSError) as exc:
            name = self._shards[number].header.name
            self._leave_out(name, exc)
            self.forget(name)
            return None

    def all(self) -> Iterator[tuple[KeptRows, Numbers]]:
        """All labels but damaged ones, file by file, with those of the samples that a key leads to."""
        with self._lock:
            numbers = list(self._shards)
        for number in numbers:
            with self._lock:
                if number not in self._shards:
                    continue
                samples = np.arange(self._shards[number].header.samples)
                kept = self.kept(number, samples)
                if kept is None:
                    continue
                there = self._index.find(kept.keys) == samples | (number << _SAMPLE_BITS)
            yield kept, np.flatnonzero(there)

    def prepare(self) -> None:
        """Make the place ready to be written to, once.

        Raises:
            OSError: it cannot be written to.
            StoreError: another recipe lies there.
        """
        if not self._prepared:
            self.place.prepare()
            self._prepared = True

    def refresh(self, now: float | None = None) -> None:
        """Take in files that came, also from other processes, and let go of those that went.

        Args:
            now: seconds of a monotonic clock; nothing is done before the place wants to be looked at again.
                None: at once.

        Raises:
            OSError: the place cannot be read.
            StoreError: it is of another revision, or another recipe lies there.
        """
        if now is not None:
            if now < self._look_at:
                return
            self._look_at = now + self.place.look_s
        state = self.place.state()
        if state == self._seen:
            return
        if state and not self._prepared:
            self.place.check_recipe()
        entries = self.place.entries()
        for name in entries:
            if name not in self._numbers and name not in self._broken:
                self.load(name)
        for name in set(self._numbers) - entries.keys():
            if not self.place.has(name):
                self.forget(name)
        self._seen = state

    def load(self, name: str) -> None:
        """Take in one file; one that is damaged is counted and left out."""
        try:
            shard = self.place.open(name)
            keys = shard.keys()
        except (DamagedError, OSError) as exc:
            self._leave_out(name, exc)
            return
        with self._lock:
            if name in self._numbers:
                return
            number, self._next = self._next, self._next + 1
            self._shards[number] = shard
            self._numbers[name] = number
            self.stored_bytes += shard.header.nbytes
            self._index.put(keys, np.arange(len(keys)) | (number << _SAMPLE_BITS))

    def forget(self, name: str) -> None:
        """A file is gone; who has found labels in it keeps them."""
        with self._lock:
            number = self._numbers.pop(name, None)
            if number is None:
                return
            shard = self._shards.pop(number)
            self._used.discard(number)
            self._withdrawn.pop(name, None)
            self.stored_bytes -= shard.header.nbytes
            self._index.drop(number << _SAMPLE_BITS, (number + 1) << _SAMPLE_BITS)

    def add(self, kept: KeptRows) -> ShardEntry:
        """Write labels into a file, and find them there from now on.

        Raises:
            OSError: the disk did not take it.
            StoreError: another recipe lies there.
        """
        self.prepare()
        entry = self.place.add(kept)
        self.load(entry.file)
        self._note(entry, kept)
        return entry

    def withdraw(self, keys: Keys) -> None:
        """Find these no more; ``rewrite`` takes them out of the files. Under the lock of the shelf."""
        numbers, samples = self.find(keys)
        for number in np.unique(numbers[numbers >= 0]).tolist():
            name = self._shards[number].header.name
            self._withdrawn.setdefault(name, set()).update(samples[numbers == number].tolist())
        self._index.remove(keys)

    def rewrite(self, keys: Keys, make_room: Callable[[int], None]) -> None:
        """Let each file with samples that were withdrawn be followed by one without them.

        It goes first: who dies in between has lost labels, and none that were withdrawn come back.

        Args:
            keys: of samples that may have got into files since they were withdrawn.
            make_room: for so many bytes.

        Raises:
            OSError: the disk did not take it.
        """
        with self._lock:
            self.withdraw(keys)
            todo = [(name, self._withdrawn[name]) for name in self._withdrawn if name in self._numbers]
            self._withdrawn.clear()
        for name, samples in todo:
            try:
                kept = self.place.open(name).checked()
            except (DamagedError, OSError) as exc:
                self._leave_out(name, exc)
                self.forget(name)
                continue
            rest = kept.take(np.setdiff1d(np.arange(kept.samples), list(samples)))
            self.place.remove([name])
            self.forget(name)
            if rest.samples:
                make_room(rest.nbytes)
                self.add(rest)

    def join_small(self, make_room: Callable[[int], None]) -> None:
        """Let small files that this process has written become one, as often as there are enough of them.

        Until the small ones are gone their labels lie in two files, which takes room.

        Args:
            make_room: for so many bytes.

        Raises:
            OSError: the disk did not take it; the small files stay.
        """
        while self._to_join:
            names = self._to_join.pop()
            parts = {}
            for name in names:
                try:
                    # Read and compared anew, so that no damage since then gets a digest of its own.
                    parts[name] = self.place.open(name).checked()
                except (DamagedError, OSError) as exc:
                    self._leave_out(name, exc)
                    self.forget(name)
            if len(parts) < 2:
                continue
            make_room(sum(part.nbytes for part in parts.values()))
            joined = KeptRows.joined(list(parts.values()))
            entry = self.place.add(joined)
            self.load(entry.file)
            self.place.remove(parts)
            for name in parts:
                self.forget(name)
            self._note(entry, joined)

    def mark_used(self) -> None:
        """Tell other processes which files were used: eviction goes by the time of a file's last use."""
        with self._lock:
            names = [self._shards[number].header.name for number in self._used]
            self._used.clear()
        self.place.mark_used(names)

    def set_aside_broken(self) -> None:
        """Move damaged files where nobody meets them again.

        Raises:
            OSError: they cannot be moved.
        """
        with self._lock:
            broken, self._broken = self._broken, set()
        for name in sorted(broken):
            try:
                self.place.open(name).checked()
            except DamagedError:
                self.place.set_aside(name)
            except FileNotFoundError:
                continue
            else:  # the same labels were written again, under the name that they had
                self.load(name)

    def _note(self, entry: ShardEntry, kept: KeptRows) -> None:
        names = self._small.add(entry.file, entry.bytes, kept.kind)
        if names:
            self._to_join.append(names)

    def _leave_out(self, name: str, exc: DamagedError | OSError) -> None:
        """Say why the labels of a file are not used; nothing where another process has evicted it."""
        if isinstance(exc, DamagedError):
            self.damaged += 1
            self._broken.add(name)
            logger.warning(
                "kept labels are damaged, and are computed anew: %s. The file is moved to %s/%s, where it "
                "may be removed",
                *(exc, self.place.where, DAMAGED),
            )
        elif not isinstance(exc, FileNotFoundError):
            logger.warning(
                "labels in %s/%s cannot be read, and are left out: %s", self.place.where, name, exc
            )
