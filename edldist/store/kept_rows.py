"""Labels of some samples side by side, wherever their memory is: of this process, or of a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edldist.store.layout import Layout
from edldist.store.sample_key import Keys

__all__ = ["KeptRows", "Numbers", "Table"]

Table: TypeAlias = NDArray[np.uint8]
"""Rows of a tensor as bytes, [rows, bytes of a row]."""

Numbers: TypeAlias = NDArray[np.int64]


class KeptRows:
    """Labels of samples under their keys. What is written once is never changed, so that views of it last.

    Attributes:
        layout: of the tensors.
        keys: [n, 32].
        witness: digests of the inputs, [n, 32]; None where the keys are digests of the inputs themselves.
        ends: where the rows of sample k begin (``ends[k]``) and end, int64 [n + 1]; None: a sample is a row.
        tables: the rows of each tensor, in the order of ``layout``.
    """

    __slots__ = ("ends", "keys", "layout", "tables", "witness")

    def __init__(
        self, layout: Layout, keys: Keys, witness: Keys | None, ends: Numbers | None, tables: Sequence[Table]
    ) -> None:
        self.layout = layout
        self.keys = keys
        self.witness = witness
        self.ends = ends
        self.tables = tables

    @property
    def samples(self) -> int:
        return len(self.keys)

    @property
    def rows(self) -> int:
        """Of each tensor."""
        return len(self.tables[0])

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        parts = [self.keys, *self.tables, *(part for part in (self.witness, self.ends) if part is not None)]
        return sum(part.nbytes for part in parts)

    def lengths(self, samples: Numbers) -> Numbers:
        """Rows of each of some samples."""
        if self.ends is None:
            return np.ones_like(samples)
        return self.ends[samples + 1] - self.ends[samples]

    @property
    def kind(self) -> tuple[Layout, bool, bool]:
        """Equal where labels may lie side by side."""
        return self.layout, self.witness is not None, self.ends is not None

    @classmethod
    def joined(cls, parts: Sequence[KeptRows]) -> KeptRows:
        """Copies of labels of one kind, one behind the other."""
        first = parts[0]
        witness = ends = None
        if first.witness is not None:
            witness = np.concatenate([part.witness for part in parts if part.witness is not None])
        if first.ends is not None:
            lengths = [np.diff(part.ends) for part in parts if part.ends is not None]
            ends = np.concatenate(([0], np.cumsum(np.concatenate(lengths))))
        tables = [np.concatenate(each) for each in zip(*(part.tables for part in parts), strict=True)]
        return cls(first.layout, np.concatenate([part.keys for part in parts]), witness, ends, tables)

    def take(self, samples: Numbers) -> KeptRows:
        """Copies of some samples, in any order."""
        rows, ends = samples, None
        if self.ends is not None:
            lengths = self.lengths(samples)
            ends = np.concatenate(([0], np.cumsum(lengths)))
            rows = np.arange(ends[-1]) + np.repeat(self.ends[samples] - ends[:-1], lengths)
        witness = None if self.witness is None else self.witness[samples]
        return KeptRows(
            self.layout, self.keys[samples], witness, ends, [table[rows] for table in self.tables]
        )

    def part(self, first: int, last: int) -> KeptRows:
        """Some samples that follow each other, as views."""
        start, stop, ends = first, last, None
        if self.ends is not None:
            ends = self.ends[first : last + 1] - self.ends[first]
            start, stop = int(self.ends[first]), int(self.ends[last])
        witness = None if self.witness is None else self.witness[first:last]
        tables = [table[start:stop] for table in self.tables]
        return KeptRows(self.layout, self.keys[first:last], witness, ends, tables)
