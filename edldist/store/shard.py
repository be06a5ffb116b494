"""A file of kept labels, mapped into memory and compared with what was written as its labels are first used.

A file of 64 MiB of which one label is read is read, and digested, in part.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edldist.checkpoint.manifest import DamagedError
from edldist.store.index_file import ShardEntry
from edldist.store.kept_rows import KeptRows, Numbers, Table
from edldist.store.sample_key import KEY_BYTES, Keys
from edldist.store.shard_header import LABELS, LENGTH_BYTES, MOST_HEADER_BYTES, ShardHeader

__all__ = ["Shard"]


class Shard:
    """A file of labels, checked as far as it was used. Any thread may use it.

    Who has rows of it keeps them when the file is removed. Memory that is mapped is lost with what it maps: a
    process that uses a file while another one cuts it off ends by SIGBUS. Nobody of edldist changes a file
    once it has its name.

    Args:
        header: of the file.
        path: where it lies on this host; called when it is mapped, and may have to fetch it.
        front: reads so many of the first bytes of its data, where that is cheaper than to fetch it.
    """

    def __init__(
        self,
        header: ShardHeader,
        path: Callable[[], Path],
        front: Callable[[int], bytes] | None = None,
    ) -> None:
        self.header = header
        self._path = path
        self._front = front
        self._lock = threading.Lock()
        self._mapping: _Mapping | None = None

    @classmethod
    def at(cls, path: Path, recipe: str) -> Shard:
        """A file on this host.

        Args:
            path: of the file, under its name.
            recipe: digest of what its labels must have been made by.

        Raises:
            DamagedError: it is not what its name says, or holds labels of another recipe.
            OSError: it cannot be read; says nothing about its content.
        """
        with path.open("rb") as stream:
            nbytes = os.fstat(stream.fileno()).st_size
            head = stream.read(LENGTH_BYTES)
            size = int.from_bytes(head, "little")
            if len(head) < LENGTH_BYTES or size > min(MOST_HEADER_BYTES, nbytes):
                raise DamagedError(f"{path.name} is no file of labels, or was cut off")
            head += stream.read(size)
        return cls(ShardHeader(path.name, head, nbytes, recipe), lambda: path)

    def keys(self) -> Keys:
        """The keys of its samples, checked.

        Raises:
            DamagedError: they are not what was written.
            OSError: the file cannot be read.
        """
        if self._front is None:
            return self._mapped().kept.keys
        size = self.header.block_bytes
        front = self._front(self.header.first_blocks * size)
        for block in range(self.header.first_blocks):
            self.header.check(block, front[block * size : (block + 1) * size])
        start, stop = self.header.offsets["keys"]
        return np.frombuffer(front, np.uint8)[start:stop].reshape(-1, KEY_BYTES)

    def checked(self, samples: Numbers | None = None) -> KeptRows:
        """Its labels, in mapped memory, those of some samples (or all) compared with what was written.

        Raises:
            DamagedError: they differ.
            OSError: the file cannot be read.
        """
        mapping = self._mapped()
        mapping.check(samples)
        return mapping.kept

    def let_go(self) -> None:
        """Map and check it anew when it is next used: its file goes now. Waits for nobody."""
        self._mapping = None

    def entry(self, written_unix_s: float) -> ShardEntry:
        """What a list says of it; all of it is read.

        Raises:
            DamagedError: it is not what was written.
            OSError: it cannot be read.
        """
        self.checked()
        digest = hashlib.blake2b(digest_size=32)
        with self._path().open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        return ShardEntry(
            file=self.header.name,
            samples=self.header.samples,
            rows=self.header.rows,
            bytes=self.header.nbytes,
            blake2b=digest.hexdigest(),
            written_unix_s=round(written_unix_s, 3),
        )

    def _mapped(self) -> _Mapping:
        mapping = self._mapping
        if mapping is not None:
            return mapping
        with self._lock:
            mapping = self._mapping
            if mapping is None:
                mapping = self._mapping = _Mapping(self.header, self._path())
            return mapping


class _Mapping:
    """A file in mapped memory, and which of its blocks were compared with what was written.

    Two threads may compare one block twice, no more.
    """

    def __init__(self, header: ShardHeader, path: Path) -> None:
        self._header = header
        with path.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size != header.nbytes:
                raise DamagedError(f"{header.name} was cut off")
            mapped = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
        self._data = np.frombuffer(mapped, np.uint8, offset=header.start)
        self._checked = np.zeros(header.blocks, np.bool_)
        self._whole = False
        self._check_blocks(np.arange(header.first_blocks))
        self.kept = self._rows()

    def check(self, samples: Numbers | None) -> None:
        """Compare the labels of some samples, or of all, with what was written."""
        if self._whole:
            return
        if samples is None:
            self._check_blocks(np.arange(self._header.blocks))
            self._whole = True
            return
        first, last = samples, samples + 1
        if self.kept.ends is not None:
            first, last = self.kept.ends[first], self.kept.ends[last]
        for column in self.kept.layout:
            if column.row_bytes:
                at = self._header.offsets[LABELS + column.name][0]
                self._check_spans(at + first * column.row_bytes, at + last * column.row_bytes)
        self._whole = bool(self._checked.all())

    def _check_spans(self, starts: Numbers, stops: Numbers) -> None:
        """Check the blocks that some spans of the data lie in."""
        first, last = starts // self._header.block_bytes, (stops - 1) // self._header.block_bytes
        touched = [first, last]
        for at in np.flatnonzero(last - first > 1).tolist():
            touched.append(np.arange(first[at], last[at]))
        self._check_blocks(np.unique(np.concatenate(touched)))

    def _check_blocks(self, blocks: Numbers) -> None:
        size = self._header.block_bytes
        for block in blocks[~self._checked[blocks]].tolist():
            self._header.check(block, self._data[block * size : (block + 1) * size].data)
            self._checked[block] = True

    def _rows(self) -> KeptRows:
        header = self._header
        keys: Keys = self._table("keys", KEY_BYTES)
        witness: Keys | None = self._table("witness", KEY_BYTES) if "witness" in header.offsets else None
        ends: Numbers | None = None
        if header.ragged:
            lengths = self._table("lengths", 8).reshape(-1).copy().view(np.int64)
            ends = np.concatenate(([0], np.cumsum(lengths)))
            if (lengths < 1).any() or ends[-1] != header.rows:
                raise DamagedError(f"the lengths in {header.name} do not fit its {header.rows} rows")
        tables = [self._table(LABELS + column.name, column.row_bytes) for column in header.layout]
        return KeptRows(header.layout, keys, witness, ends, tables)

    def _table(self, name: str, row_bytes: int) -> Table:
        start, stop = self._header.offsets[name]
        return self._data[start:stop].reshape(-1 if row_bytes else self._header.rows, row_bytes)
