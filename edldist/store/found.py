"""What a store has of the samples of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edldist.store.kept_rows import KeptRows, Numbers, Table
from edldist.store.layout import Layout, specs_of
from edldist.store.sample_key import KEY_BYTES, Keys
from edldist.wire.messages import TensorSpec

__all__ = ["Found", "Piece"]

_WIDE_BYTES = 4 << 10
"""Rows from this size on are copied one by one, straight to their place."""


class Piece:
    """Hits that lie in one place.

    Attributes:
        kept: where.
        samples: which of its samples.
        places: where each belongs among the hits.
    """

    __slots__ = ("kept", "places", "samples")

    def __init__(self, kept: KeptRows, samples: Numbers, places: Numbers) -> None:
        self.kept = kept
        self.samples = samples
        self.places = places


class Found:
    """Kept labels of some samples of a batch, in the order of the batch. Rows are copied when asked for.

    Lasts longer than the store: it holds on to the memory, or the files, that its rows are in.

    Attributes:
        hit: bool [n], of which samples there are labels.
        hits: how many.
        layout: of their tensors, by name; ``specs`` are the same with the number of rows.
        lengths: rows of each hit, int64 [hits]; None: one each.
    """

    def __init__(self, hit: NDArray[np.bool_], pieces: Sequence[Piece]) -> None:
        self.hit = hit
        self.hits = sum(len(piece.samples) for piece in pieces)
        self.layout: Layout = pieces[0].kept.layout
        self._pieces = pieces
        self.lengths: Numbers | None = None
        self._starts: Numbers | None = None
        if pieces[0].kept.ends is not None:
            lengths = np.zeros(self.hits, np.int64)
            for piece in pieces:
                lengths[piece.places] = piece.kept.lengths(piece.samples)
            self.lengths, self._starts = lengths, np.cumsum(lengths) - lengths
        self._rows = self.hits if self.lengths is None else int(self.lengths.sum())

    @property
    def specs(self) -> list[TensorSpec]:
        """Of the tensors that ``rows`` and ``frames`` hold, the rows of all hits first."""
        return specs_of(self.layout, self._rows)

    @property
    def witness(self) -> Keys | None:
        """Digests of the inputs that the hits' labels were made of, [hits, 32], where they were kept."""
        if self._pieces[0].kept.witness is None:
            return None
        witness = np.empty((self.hits, KEY_BYTES), np.uint8)
        for piece in self._pieces:
            assert piece.kept.witness is not None
            witness[piece.places] = piece.kept.witness[piece.samples]
        return witness

    def rows(self, name: str) -> Table:
        """The rows of a tensor, those of the first hit first: uint8 [rows, bytes of a row], a copy.

        Raises:
            KeyError: there is no such tensor.
        """
        at = next((at for at, column in enumerate(self.layout) if column.name == name), None)
        if at is None:
            raise KeyError(f"kept labels are {[column.name for column in self.layout]}, not {name!r}")
        if self._starts is None and len(self._pieces) == 1:
            (piece,) = self._pieces
            return piece.kept.tables[at][piece.samples]
        rows = np.empty((self._rows, self.layout[at].row_bytes), np.uint8)
        for piece in self._pieces:
            table = piece.kept.tables[at]
            if self._starts is None:
                if table.shape[1] < _WIDE_BYTES:
                    rows[piece.places] = table[piece.samples]
                else:
                    for place, sample in zip(piece.places.tolist(), piece.samples.tolist(), strict=True):
                        rows[place] = table[sample]
                continue
            ends = piece.kept.ends
            assert ends is not None and self.lengths is not None
            spans = zip(
                ends[piece.samples].tolist(),
                self._starts[piece.places].tolist(),
                self.lengths[piece.places].tolist(),
                strict=True,
            )
            for source, target, length in spans:
                rows[target : target + length] = table[source : source + length]
        return rows

    def frames(self) -> list[memoryview]:
        """The bytes of each tensor, in the order of ``specs``."""
        return [self.rows(column.name).reshape(-1).data for column in self.layout]
