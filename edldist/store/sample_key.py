"""The key of one sample: a digest of its input, or of its id and what was done to it.

A key is whole where it is kept and where it is compared: 32 bytes of blake2b. It never holds a rank, a step
or a place in a batch, so any run that shows the same input to the same teacher finds its labels.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from edldist.errors import StoreError

__all__ = [
    "KEY_BYTES",
    "InputLayout",
    "Keys",
    "augmentation_seed",
    "check_witness",
    "keys_of_ids",
    "keys_of_inputs",
]

KEY_BYTES = 32

Keys: TypeAlias = NDArray[np.uint8]
"""Keys of some samples, [n, 32]."""

InputLayout: TypeAlias = Sequence[tuple[str, str, tuple[int, ...]]]
"""Name, dtype and shape of one row of each input."""

KINDS = frozenset(("str", "bytes"))
"""Dtypes of inputs that are texts (``edldist.wire.texts.KINDS``, without torch)."""

_JOINED_BYTES = 16 << 10
"""Samples of one row, up to this size, are joined first, so that each is digested in one call."""


def keys_of_inputs(
    layout: InputLayout, frames: Sequence[bytes | bytearray | memoryview], ends: Sequence[int]
) -> Keys:
    """Keys of samples whose inputs are at hand: of the inputs' names, dtypes, row shapes and bytes.

    The order in which the inputs are named plays no part, nor do the other samples of the batch.

    Args:
        layout: of the inputs, those that a codec asks about included. Of texts (``edldist.wire.texts``) the
            width plays no part.
        frames: the bytes of each, rows first, in the order of ``layout``.
        ends: where the rows of sample k begin (``ends[k]``) and end: ``range(n + 1)`` where a sample is a
            row. Packed sequences are as many rows as they are long, their marks among the inputs.

    Raises:
        ValueError: a frame is no whole number of rows.
    """
    samples, rows = len(ends) - 1, ends[-1]
    order = sorted(range(len(layout)), key=lambda at: layout[at][0])
    named = [
        (name, kind, () if kind in KINDS else shape) for name, kind, shape in (layout[at] for at in order)
    ]
    head = b"inputs\0" + msgspec.json.encode(named) + b"\0"
    texts = [_texts_of(frames[at], rows) for at in order if layout[at][1] in KINDS]
    tables = [_table(frames[at], rows) for at in order if layout[at][1] not in KINDS]
    if rows == samples and not texts and sum(table.shape[1] for table in tables) <= _JOINED_BYTES:
        return _keys_of_rows(head, tables, rows)
    base = hashlib.blake2b(head, digest_size=KEY_BYTES)
    memory = [(table.reshape(-1).data, table.shape[1]) for table in tables]
    digests = bytearray()
    for sample in range(samples):
        first, last = ends[sample], ends[sample + 1]
        digest = base.copy()
        digest.update((last - first).to_bytes(8, "little"))
        for view, width in memory:
            digest.update(view[first * width : last * width])
        for text in texts:
            digest.update(b"".join(text[first:last]))
        digests += digest.digest()
    return _rows_of(digests)


def keys_of_ids(
    data: str, ids: Sequence[int | str], seeds: Sequence[int] | None = None, *, asked: bytes = b""
) -> Keys:
    """Keys of samples that are named: of the data set, the id, and the seed of the sample's augmentation.

    Args:
        data: which data set the ids belong to (``Recipe.data``).
        ids: numbers or texts; ``1`` and ``"1"`` are two samples.
        seeds: of the augmentation of each (``augmentation_seed``); None: it is shown as it is.
        asked: what else the labels depend on and the id does not tell, the same for all.

    Raises:
        StoreError: something is no id, or there are not as many seeds.
    """
    if seeds is not None and len(seeds) != len(ids):
        raise StoreError(f"{len(seeds)} augmentation seeds for {len(ids)} ids: give one for each sample")
    base = hashlib.blake2b(
        b"ids\0%d\0%s%d\0%s" % (len(data), data.encode(), len(asked), asked), digest_size=KEY_BYTES
    )
    digests = bytearray()
    for at, sample in enumerate(ids):
        digest = base.copy()
        seed = b"" if seeds is None else b"%d" % seeds[at]
        digest.update(_id_text(sample) + b"\0" + seed)
        digests += digest.digest()
    return _rows_of(digests)


def augmentation_seed(seed: int, id: int | str, variant: int = 0) -> int:
    """A seed for the augmentation of one sample, the same in every process and run.

    Args:
        seed: of the run.
        id: of the sample in its data set.
        variant: tells augmentations of one sample apart: the epoch modulo their number, say.

    Returns:
        A number from 0 to 2**63 - 1, for ``torch.Generator().manual_seed`` and the like.

    Raises:
        StoreError: the id is neither a number nor a text.
    """
    text = b"augmentation\0%d\0%d\0%s" % (seed, variant, _id_text(id))
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def check_witness(kept: Keys, at_hand: Keys, ids: Sequence[int | str]) -> None:
    """Make sure that samples are shown as they were when their labels were made.

    Args:
        kept: digests of the inputs that the labels were made of (``keys_of_inputs``).
        at_hand: of those that the loop has now under the same keys.
        ids: how the samples are called.

    Raises:
        StoreError: an input differs; says which, and what to do.
    """
    other = np.flatnonzero((kept != at_hand).any(axis=1))
    if other.size:
        raise StoreError(
            f"sample {ids[int(other[0])]!r} is not shown as it was when its labels were kept: an "
            "augmentation that is not seeded, or another data set under the same ids. Seed it "
            "(edldist.augmentation_seed(seed, id, variant)) and return the seed with the id, give the data "
            "set another name, or leave ids out, so that the inputs themselves are digested"
        )


def _id_text(sample: int | str) -> bytes:
    if isinstance(sample, str):
        return b"s" + sample.encode("utf-8", "surrogatepass")
    if isinstance(sample, (int, np.integer)) and not isinstance(sample, bool):
        return b"i%d" % int(sample)
    raise StoreError(
        f"{sample!r:.100} ({type(sample).__name__}) is no id of a sample: use a number or a text"
    )


def _keys_of_rows(head: bytes, tables: Sequence[NDArray[np.uint8]], rows: int) -> Keys:
    """Keys of samples of one small row each, with one call for each: what is digested lies side by side."""
    head += (1).to_bytes(8, "little")
    first = np.broadcast_to(np.frombuffer(head, np.uint8), (rows, len(head)))
    joined = np.concatenate([first, *tables], axis=1)
    view, width = joined.reshape(-1).data, joined.shape[1]
    digest = functools.partial(hashlib.blake2b, digest_size=KEY_BYTES)
    return _rows_of(
        bytearray().join([digest(view[at : at + width]).digest() for at in range(0, rows * width, width)])
    )


def _table(frame: bytes | bytearray | memoryview, rows: int) -> NDArray[np.uint8]:
    """The bytes of a tensor by rows."""
    return np.frombuffer(frame, np.uint8).reshape(rows, -1 if rows else 0)


def _texts_of(frame: bytes | bytearray | memoryview, rows: int) -> list[bytes]:
    """Texts with their lengths, and without the zeros behind them: these are as many as the batch has it."""
    table = _table(frame, rows)
    lengths = np.ascontiguousarray(table[:, :4]).view("<u4").ravel().tolist() if rows else []
    return [row[: 4 + length].tobytes() for row, length in zip(table, lengths, strict=True)]


def _rows_of(digests: bytearray) -> Keys:
    return np.frombuffer(digests, np.uint8).reshape(-1, KEY_BYTES)
