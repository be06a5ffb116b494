"""Labels in memory, a shard's worth: filled once from front to back, then written to a file as it is."""

from __future__ import annotations

import numpy as np

from edldist.store.kept_rows import KeptRows, Numbers, Table
from edldist.store.layout import Layout
from edldist.store.sample_key import KEY_BYTES, Keys

__all__ = ["Segment"]


class Segment:
    """Memory for labels of one layout, and those that are in it.

    The memory is asked for as a whole and touched as it is filled: an empty one takes none but addresses.

    Args:
        like: labels as they will come; one of their samples fits at least.
        most_bytes: of memory.

    Attributes:
        samples, rows: that are in it.
        capacity: samples that fit, if they are one row each.
        nbytes: of memory that is in use.
        saved: whether its labels are in a file, so that it may go.
    """

    def __init__(self, like: KeptRows, most_bytes: int) -> None:
        self.layout: Layout = like.layout
        per_row = sum(column.row_bytes for column in like.layout)
        per_sample = KEY_BYTES * (1 if like.witness is None else 2) + (0 if like.ends is None else 8)
        first_rows = 1 if like.ends is None else int(like.ends[1])
        self.capacity = max(first_rows, most_bytes // (per_row + per_sample))
        self._keys = np.empty((self.capacity, KEY_BYTES), np.uint8)
        self._witness: Keys | None = None if like.witness is None else np.empty_like(self._keys)
        self._ends = None if like.ends is None else np.zeros(self.capacity + 1, np.int64)
        self._tables: list[Table] = [
            np.empty((self.capacity, column.row_bytes), np.uint8) for column in like.layout
        ]
        self.samples = self.rows = 0
        self._row_bytes, self._sample_bytes = per_row, per_sample
        self.saved = False
        self._withdrawn: set[int] = set()

    @property
    def nbytes(self) -> int:
        return self.samples * self._sample_bytes + self.rows * self._row_bytes

    def takes(self, like: KeptRows) -> bool:
        """Whether such labels may lie here: of one layout, with witnesses or lengths or without."""
        return (
            self.layout == like.layout
            and (self._witness is None) == (like.witness is None)
            and (self._ends is None) == (like.ends is None)
        )

    def room_for(self, labels: KeptRows) -> int:
        """How many of these samples, from the first on, still fit."""
        if labels.ends is None:
            return min(labels.samples, self.capacity - self.samples)
        # A sample has one row at least, so there is memory for as many samples as rows.
        return int(np.searchsorted(labels.ends, self.capacity - self.rows, side="right")) - 1

    def add(self, labels: KeptRows) -> int:
        """Copy labels for which there is room; the number of the first among the samples here."""
        first, last = self.samples, self.samples + labels.samples
        rows = self.rows + labels.rows
        self._keys[first:last] = labels.keys
        if self._witness is not None and labels.witness is not None:
            self._witness[first:last] = labels.witness
        if self._ends is not None and labels.ends is not None:
            self._ends[first + 1 : last + 1] = labels.ends[1:] + self.rows
        for table, came in zip(self._tables, labels.tables, strict=True):
            table[self.rows : rows] = came
        self.samples, self.rows = last, rows
        return first

    def close(self) -> None:
        """Nothing comes any more: let go of the memory, if most of it is empty.

        Who seals often would have 64 MiB of addresses for each handful of labels, and two large pages for
        each table.
        """
        if 2 * self.rows > self.capacity:
            return
        kept = self.kept()
        self.capacity = self.rows
        self._keys = kept.keys.copy()
        self._witness = None if kept.witness is None else kept.witness.copy()
        self._ends = None if kept.ends is None else kept.ends.copy()
        self._tables = [table.copy() for table in kept.tables]

    def withdraw(self, samples: Numbers) -> None:
        """These are to get into no file."""
        self._withdrawn.update(samples.tolist())

    def for_a_file(self) -> KeptRows:
        """What is in it, without samples that were withdrawn."""
        kept = self.kept()
        if not self._withdrawn:
            return kept
        return kept.take(np.setdiff1d(np.arange(self.samples), list(self._withdrawn)))

    def kept(self) -> KeptRows:
        """What is in it, as views."""
        witness = None if self._witness is None else self._witness[: self.samples]
        ends = None if self._ends is None else self._ends[: self.samples + 1]
        tables = [table[: self.rows] for table in self._tables]
        return KeptRows(self.layout, self._keys[: self.samples], witness, ends, tables)
