"""Labels on their way into a file: a safetensors file that checks itself. The format is in docs/store.md.

::

    8 bytes   length of the header
    header    JSON: __metadata__ with the digest of each block, then the tensors
    data      lengths, keys, witness, labels.NAME ...   in blocks of 256 KiB, each with its digest

The name of the file is the digest of its first two parts, so a file is what its name says, or damaged.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edldist.store.index_file import ShardEntry
from edldist.store.kept_rows import KeptRows
from edldist.store.layout import ITEM_BYTES
from edldist.store.shard_header import (
    BLOCK_BYTES,
    FORMAT,
    LABELS,
    LENGTH_BYTES,
    TensorEntry,
    block_digest,
    name_of,
)

__all__ = ["ShardDraft"]

_SAFE = {
    **{"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"},
    **{"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"},
    **{"int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8"},
    **{"uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL"},
}
"""Names of dtypes in safetensors files; others lie there as bytes, one more dimension."""


class _Part(NamedTuple):
    name: str
    dtype: str
    shape: list[int]
    rows: NDArray[np.uint8]


class ShardDraft:
    """Labels as the bytes of a file.

    Args:
        kept: the labels, one sample at least.
        recipe: digest of what made them.

    Attributes:
        name: of the file.
        nbytes: of the file.
    """

    def __init__(self, kept: KeptRows, recipe: str) -> None:
        parts = list(_parts_of(kept))
        self._data = [part.rows.reshape(-1).data for part in parts]
        metadata = {
            "format": FORMAT,
            "recipe": recipe,
            "layout": msgspec.json.encode(kept.layout).decode(),
            "block_bytes": str(BLOCK_BYTES),
            "blocks": b"".join(map(block_digest, _blocks(self._data))).hex(),
        }
        header: dict[str, object] = {"__metadata__": metadata}
        at = 0
        for part in parts:
            header[part.name] = TensorEntry(part.dtype, part.shape, (at, at + part.rows.nbytes))
            at += part.rows.nbytes
        text = msgspec.json.encode(header)
        text += b" " * (-len(text) % 8)
        self._head = len(text).to_bytes(LENGTH_BYTES, "little") + text
        self._samples, self._rows = kept.samples, kept.rows
        self.name = name_of(self._head)
        self.nbytes = len(self._head) + at

    def write(self, stream: BinaryIO) -> ShardEntry:
        """Write the file; what a list says of it.

        Raises:
            OSError: the disk did not take it.
        """
        digest = hashlib.blake2b(digest_size=32)
        for part in (memoryview(self._head), *self._data):
            stream.write(part)
            digest.update(part)
        return ShardEntry(
            file=self.name,
            samples=self._samples,
            rows=self._rows,
            bytes=self.nbytes,
            blake2b=digest.hexdigest(),
            written_unix_s=round(time.time(), 3),
        )


def _parts_of(kept: KeptRows) -> Iterator[_Part]:
    """The tensors of a file in their order: what readers need first, then by the size of an element."""
    if kept.ends is not None:
        yield _Part("lengths", "I64", [kept.samples], np.diff(kept.ends).view(np.uint8))
    yield _Part("keys", "U8", list(kept.keys.shape), np.ascontiguousarray(kept.keys))
    if kept.witness is not None:
        yield _Part("witness", "U8", list(kept.witness.shape), np.ascontiguousarray(kept.witness))
    columns = sorted(zip(kept.layout, kept.tables, strict=True), key=lambda pair: -ITEM_BYTES[pair[0].dtype])
    for column, table in columns:
        dtype, shape = _SAFE.get(column.dtype), [kept.rows, *column.shape]
        if dtype is None:
            dtype, shape = "U8", [*shape, ITEM_BYTES[column.dtype]]
        yield _Part(LABELS + column.name, dtype, shape, np.ascontiguousarray(table))


def _blocks(parts: Sequence[memoryview]) -> Iterator[bytes | memoryview]:
    """The blocks of memory that lies one behind the other; copies only where one part ends."""
    begun = b""
    for part in parts:
        at = BLOCK_BYTES - len(begun) if begun else 0
        if begun:
            begun += bytes(part[:at])
            if len(begun) < BLOCK_BYTES:
                continue
            yield begun
            begun = b""
        while at + BLOCK_BYTES <= len(part):
            yield part[at : at + BLOCK_BYTES]
            at += BLOCK_BYTES
        begun = bytes(part[at:])
    if begun:
        yield begun
