"""The labels of one recipe: found in memory or in files, and put there."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edldist.errors import StoreError
from edldist.store.found import Found, Piece
from edldist.store.kept_batch import KeptBatch
from edldist.store.kept_rows import KeptRows, Numbers
from edldist.store.key_index import NOWHERE, KeyIndex
from edldist.store.layout import layout_of
from edldist.store.memory import Memory
from edldist.store.recipe import Recipe
from edldist.store.sample_key import KEY_BYTES, Keys
from edldist.store.segment import Segment
from edldist.store.shelf_files import ShelfFiles
from edldist.wire.messages import TensorSpec

if TYPE_CHECKING:
    from edldist.store.keeper import Keeper

__all__ = ["Shelf"]

_TOGETHER = 4096
"""Samples at a time, of those that go through all that is kept."""


class Shelf:
    """Labels of one recipe. Any thread may use it; ``find`` and ``put`` never wait for a disk to write.

    Made by ``LabelStore.shelf``.

    Attributes:
        recipe: what its labels are made by.
    """

    def __init__(
        self,
        recipe: Recipe,
        memory: Memory,
        files: ShelfFiles | None,
        keeper: Keeper | None,
        lock: threading.RLock,
    ) -> None:
        self.recipe = recipe
        self._memory = memory
        self._files = files
        self._keeper = keeper
        self._lock = lock
        self._hits = self._misses = self._dropped = self._put = self._withdrawn = 0

    def find(self, keys: Keys) -> Found | None:
        """The labels that are kept of some samples.

        Labels of a batch have one shape. Where those that are kept have several, the hits are those of one of
        them, and all others are misses.

        Args:
            keys: uint8 [n, 32] (``edldist.store.sample_key``).

        Returns:
            None: of none of them.
        """
        keys = _checked_keys(keys)
        with self._lock:
            pieces = self._pieces(keys)
            found = _found(len(keys), pieces)
            hits = 0 if found is None else found.hits
            self._hits += hits
            self._misses += len(keys) - hits
        return found

    def holds(self, keys: Keys, *, checked: bool = False) -> NDArray[np.bool_]:
        """Of which samples there are labels in files.

        Args:
            keys: uint8 [n, 32].
            checked: compare these labels with what was written, too, which reads them; those that are damaged
                are not there, as when they are found. Else keys are compared, and no labels are read.
        """
        keys = _checked_keys(keys)
        with self._lock:
            if self._files is None:
                return np.zeros(len(keys), np.bool_)
            return self._files.holds(keys, checked)

    def keeps(self, keys: Keys) -> NDArray[np.bool_]:
        """Of which samples there are labels, in memory or in files. They are neither read nor counted.

        Args:
            keys: uint8 [n, 32].
        """
        keys = _checked_keys(keys)
        with self._lock:
            return self._known(keys)

    def put(
        self,
        keys: Keys,
        specs: Sequence[TensorSpec],
        frames: Sequence[bytes | bytearray | memoryview],
        witness: Keys | None = None,
        lengths: Sequence[int] | Numbers | None = None,
        *,
        wait: bool = False,
    ) -> int:
        """Keep labels. Those that are there already stay as they are.

        They are copied, and found from now on; a thread of the store writes them to files later. Where the
        disk is slower than the labels come, those that have no room are dropped, and counted.

        Args:
            keys: uint8 [n, 32].
            specs, frames: the packed tensors, rows first, as a codec sent them.
            witness: digests of the inputs, uint8 [n, 32]; needed where the recipe names its ``data``.
            lengths: rows of each sample, one at least; None: one each.
            wait: for the disk, rather than to drop labels.

        Returns:
            How many were dropped.

        Raises:
            StoreError: these are no labels of such samples; with ``wait``, the disk does not take them.
        """
        return self._put_all(self._checked(keys, specs, frames, witness, lengths), wait)

    def take(self, kept: KeptRows, *, wait: bool = False) -> int:
        """As ``put``, of labels that another shelf of the same recipe keeps."""
        return self._put_all(kept, wait)

    def withdraw(self, keys: Keys) -> None:
        """Find labels of these samples no more, and take them out of the files: they were wrong.

        Whoever has found them keeps them. A thread of the store writes the files anew.

        Args:
            keys: uint8 [n, 32]; those that are not there are no error.
        """
        keys = _checked_keys(keys)
        with self._lock:
            sealed = self._memory.seal()
            self._memory.withdraw(keys)
            if self._files is not None:
                self._files.withdraw(keys)
            self._withdrawn += len(keys)
        self._save(sealed)
        if self._keeper is not None:
            self._keeper.withdraw(self, keys)

    def kept(self) -> Iterator[KeptRows]:
        """All labels, each sample once, as many at a time as lie together."""
        with self._lock:
            in_memory = list(self._memory.all())
        seen = KeyIndex()  # what is in memory may be written to a file meanwhile
        for kept, samples in in_memory:
            seen.put(kept.keys[samples], samples)
            yield from _some_at_a_time(kept, samples)
        if self._files is not None:
            for kept, samples in self._files.all():
                yield from _some_at_a_time(kept, samples[seen.find(kept.keys[samples]) == NOWHERE])

    def __iter__(self) -> Iterator[KeptBatch]:
        """All labels, each sample once, some at a time: for people's own scripts."""
        for kept in self.kept():
            yield KeptBatch(kept, self.recipe.fingerprint.codec)

    def flush(self, timeout_s: float | None = None) -> bool:
        """Have all labels in files that were put since it was last called, so that no crash costs them.

        Returns:
            False: some are in none, for ``trouble``, for lack of time, or because there are no files.
        """
        with self._lock:
            sealed = self._memory.seal()
        self._save(sealed)
        return self._keeper is not None and self._keeper.wait(self, timeout_s)

    def close(self) -> None:
        """Flush, and let go of the files. The labels that were found stay."""
        self.flush()
        if self._files is not None:
            self._files.place.close()

    @property
    def trouble(self) -> str:
        """Why labels do not get to files; empty if they do."""
        return "the store has no files" if self._keeper is None else self._keeper.trouble

    def figures(self) -> dict[str, int]:
        """How much was found and kept.

        Returns:
            Samples: ``hits``, ``misses``, ``put``, ``written`` (to files, by this process), ``evicted``
            (from memory), ``dropped`` (for lack of room or of a disk), ``withdrawn`` (of workers that were
            wrong), ``stored`` (in files). Bytes:
            ``memory_bytes`` (bounded by the store's), ``index_bytes`` (where in files the keys lie),
            ``disk_bytes``. Files: ``damaged``.
        """
        with self._lock:
            files, keeper = self._files, self._keeper
            return {
                "hits": self._hits,
                "misses": self._misses,
                "put": self._put,
                "written": keeper.written(self) if keeper else 0,
                "evicted": self._memory.evicted,
                "dropped": self._dropped + (keeper.dropped(self) if keeper else 0),
                "withdrawn": self._withdrawn,
                "stored": files.samples if files else 0,
                "memory_bytes": self._memory.nbytes,
                "index_bytes": files.nbytes if files else 0,
                "disk_bytes": files.stored_bytes if files else 0,
                "damaged": files.damaged if files else 0,
            }

    def seal(self) -> list[Segment]:
        """What is in memory and in no file yet, as it is written to one: for the store's own thread."""
        with self._lock:
            return self._memory.seal()

    def saved(self, segment: Segment) -> None:
        """A segment is in a file, or will be in none: it may go from memory."""
        with self._lock:
            segment.saved = True

    @property
    def files(self) -> ShelfFiles | None:
        """Where its labels lie; None for a store in memory alone."""
        return self._files

    def resize(self, memory_bytes: int) -> None:
        """Another bound of the memory."""
        with self._lock:
            self._memory.resize(memory_bytes)

    def _put_all(self, labels: KeptRows, wait: bool) -> int:
        with self._lock:
            labels = self._new(labels)
        while labels.samples:
            with self._lock:
                taken, sealed = self._memory.put(labels)
                self._put += taken
                labels = labels.part(taken, labels.samples)
                if wait and labels.samples and not sealed:
                    sealed = self._memory.seal()
            self._save(sealed)
            if labels.samples and not (wait and self._keeper is not None and self._keeper.made_room(self)):
                with self._lock:
                    self._dropped += labels.samples
                if wait:
                    raise StoreError(
                        f"labels cannot be kept: {self.trouble or 'one is larger than the memory'}"
                    )
                break
        return labels.samples

    def _save(self, sealed: list[Segment]) -> None:
        if sealed and self._keeper is not None:
            self._keeper.save(self, sealed)

    def _pieces(self, keys: Keys) -> list[Piece]:
        """Where the keys lie, each compared as a whole: in memory, and of the others in files."""
        numbers, samples = self._memory.find(keys)
        pieces = _compared(keys, numbers, samples, lambda number, _: self._memory.kept(number))
        if self._files is None:
            return pieces
        left = np.ones(len(keys), np.bool_)
        for piece in pieces:
            left[piece.places] = False
        if not left.any():
            return pieces
        asked = np.flatnonzero(left)
        numbers, samples = self._files.find(keys[asked])
        for piece in _compared(keys[asked], numbers, samples, self._files.kept):
            piece.places = asked[piece.places]
            pieces.append(piece)
        return pieces

    def _new(self, labels: KeptRows) -> KeptRows:
        """Those that are not kept yet."""
        known = self._known(labels.keys)
        if not known.any():
            return labels
        return labels.take(np.flatnonzero(~known))

    def _known(self, keys: Keys) -> NDArray[np.bool_]:
        known = self._memory.find(keys)[0] >= 0
        if self._files is not None:
            known |= self._files.find(keys)[0] >= 0
        return np.asarray(known, np.bool_)

    def _checked(
        self,
        keys: Keys,
        specs: Sequence[TensorSpec],
        frames: Sequence[bytes | bytearray | memoryview],
        witness: Keys | None,
        lengths: Sequence[int] | Numbers | None,
    ) -> KeptRows:
        keys = _checked_keys(keys)
        layout = layout_of(specs)
        ends, rows = None, len(keys)
        if lengths is not None:
            sizes = np.asarray(lengths, np.int64)
            if len(sizes) != len(keys) or (sizes < 1).any():
                raise StoreError(f"{len(sizes)} lengths, one at least each, are needed for {len(keys)} keys")
            ends = np.concatenate(([0], np.cumsum(sizes)))
            rows = int(ends[-1])
        if (witness is None) == bool(self.recipe.data):
            raise StoreError(
                "digests of the inputs are kept where samples are named by ids (data is "
                f"{self.recipe.data!r}), and only there"
            )
        if witness is not None and _checked_keys(witness).shape != keys.shape:
            raise StoreError(f"{len(witness)} digests of inputs for {len(keys)} keys")
        by_name = {spec.name: frame for spec, frame in zip(specs, frames, strict=True)}
        tables = []
        for column in layout:
            memory = np.frombuffer(by_name[column.name], np.uint8)
            if memory.nbytes != rows * column.row_bytes:
                raise StoreError(
                    f"labels {column.name!r} have {memory.nbytes} bytes; {rows} rows of "
                    f"{column.dtype}{list(column.shape)} have {rows * column.row_bytes}"
                )
            tables.append(memory.reshape(rows, column.row_bytes))
        return KeptRows(layout, keys, witness, ends, tables)


def _some_at_a_time(kept: KeptRows, samples: Numbers) -> Iterator[KeptRows]:
    for first in range(0, len(samples), _TOGETHER):
        yield kept.take(samples[first : first + _TOGETHER])


def _checked_keys(keys: Keys) -> Keys:
    if keys.dtype != np.uint8 or keys.ndim != 2 or keys.shape[1] != KEY_BYTES:
        raise StoreError(f"keys are {keys.dtype}{list(keys.shape)}: uint8 [n, {KEY_BYTES}] is needed")
    return keys


def _compared(
    keys: Keys, numbers: Numbers, samples: Numbers, kept_at: Callable[[int, Numbers], KeptRows | None]
) -> list[Piece]:
    """Where keys lie, each compared as a whole.

    Args:
        numbers, samples: where the first 64 bits of each lead to; a number of -1 is nowhere.
        kept_at: the labels that have a number, of which these samples are asked for; None: of damaged ones.
    """
    pieces = []
    there = np.empty_like(keys)
    for number, places in _grouped(numbers):
        some = samples[places]
        kept = kept_at(number, some)
        if kept is not None:
            there[places] = kept.keys[some]
            pieces.append(Piece(kept, some, places))
    same = (there == keys).all(axis=1)
    for piece in pieces if not same.all() else ():
        mine = same[piece.places]
        piece.samples, piece.places = piece.samples[mine], piece.places[mine]
    return pieces


def _grouped(numbers: Numbers) -> Iterator[tuple[int, Numbers]]:
    """The places at which each number stands, rising; -1 is none."""
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    before = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    for start, stop in itertools.pairwise([0, *before.tolist(), len(order)]):
        if start < stop and ordered[start] >= 0:
            yield int(ordered[start]), order[start:stop]


def _found(samples: int, pieces: list[Piece]) -> Found | None:
    """The hits as one answer, those of the layout that the first of the batch has."""
    pieces = [piece for piece in pieces if len(piece.places)]
    if not pieces:
        return None
    first = min(pieces, key=lambda piece: int(piece.places[0])).kept
    alike = [
        piece
        for piece in pieces
        if piece.kept.layout == first.layout
        and (piece.kept.ends is None) == (first.ends is None)
        and (piece.kept.witness is None) == (first.witness is None)
    ]
    hit: NDArray[np.bool_] = np.zeros(samples, np.bool_)
    for piece in alike:
        hit[piece.places] = True
    among = np.cumsum(hit) - 1
    for piece in alike:
        piece.places = among[piece.places]
    return Found(hit, alike)
