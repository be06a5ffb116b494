"""One file of kept labels: a safetensors file that checks itself. The format is in docs/store.md.

::

    8 bytes   length of the header
    header    JSON: __metadata__ with the digest of each block, then the tensors
    data      lengths, keys, witness, labels.NAME ...   in blocks of 256 KiB, each with its digest

The name of the file is the digest of its first two parts, so a file is what its name says, or damaged. Blocks
are compared when their labels are first used: a file of 64 MiB of which one label is read is read in part.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, BinaryIO, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edldist.checkpoint.manifest import DamagedError
from edldist.store.kept_rows import KeptRows, Numbers, Table
from edldist.store.layout import ITEM_BYTES, Column, Layout
from edldist.store.sample_key import KEY_BYTES, Keys

__all__ = ["LABELS", "SUFFIX", "Shard", "ShardDraft"]

SUFFIX = ".safetensors"
LABELS = "labels."
"""Before the name of a tensor of labels."""
FORMAT = "edldist.labels/1"
BLOCK_BYTES = 256 << 10
_BLOCK_DIGEST = 16
_NAME_DIGEST = 16
_MOST_HEADER = 64 << 20

_SAFE = {
    **{"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"},
    **{"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"},
    **{"int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8"},
    **{"uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL"},
}
"""Names of dtypes in safetensors files; others lie there as bytes, one more dimension."""

_Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]


class _Tensor(msgspec.Struct, frozen=True):
    dtype: str
    shape: list[_Size]
    data_offsets: tuple[_Size, _Size]


class _Entry(NamedTuple):
    name: str
    dtype: str
    shape: list[int]
    table: NDArray[np.uint8]


class ShardDraft:
    """Labels on their way into a file.

    Args:
        kept: the labels, one sample at least.
        recipe: digest of what made them.

    Attributes:
        name: of the file.
        nbytes: of the file.
    """

    def __init__(self, kept: KeptRows, recipe: str) -> None:
        entries = list(_entries(kept))
        self._parts = [entry.table.reshape(-1).data for entry in entries]
        blocks = b"".join(_block_digests(self._parts))
        metadata = {
            "format": FORMAT,
            "recipe": recipe,
            "layout": msgspec.json.encode(kept.layout).decode(),
            "block_bytes": str(BLOCK_BYTES),
            "blocks": blocks.hex(),
        }
        header: dict[str, object] = {"__metadata__": metadata}
        at = 0
        for entry in entries:
            header[entry.name] = _Tensor(entry.dtype, entry.shape, (at, at + entry.table.nbytes))
            at += entry.table.nbytes
        text = msgspec.json.encode(header)
        text += b" " * (-len(text) % 8)
        self._head = len(text).to_bytes(8, "little") + text
        self.name = _name_of(self._head)
        self.nbytes = len(self._head) + at

    def write(self, stream: BinaryIO) -> str:
        """Write the file; its blake2b-256, as ``b2sum -l 256`` has it.

        Raises:
            OSError: the disk did not take it.
        """
        digest = hashlib.blake2b(digest_size=32)
        parts: list[bytes | memoryview] = [self._head, *self._parts]
        for part in parts:
            stream.write(part)
            digest.update(part)
        return digest.hexdigest()


class Shard:
    """A file of labels that is there, checked as far as it was used.

    Used by one thread at a time.

    Args:
        path: of the file, under its name.
        recipe: digest of what its labels must have been made by.

    Raises:
        DamagedError: it is not what its name says, or holds labels of another recipe.
        OSError: it cannot be read; says nothing about its content.

    Attributes:
        layout: of its tensors.
        samples, rows: how many it has.
        nbytes: of the file.
    """

    def __init__(self, path: Path, recipe: str) -> None:
        self.path = path
        self._kept: KeptRows | None = None
        with path.open("rb") as stream:
            self.nbytes = os.fstat(stream.fileno()).st_size
            head = stream.read(8)
            size = int.from_bytes(head, "little")
            if len(head) < 8 or size > min(_MOST_HEADER, self.nbytes - 8):
                raise DamagedError(f"{path.name} is no file of labels, or was cut off")
            head += stream.read(size)
        if len(head) != 8 + size or _name_of(head) != path.name:
            raise DamagedError(f"the header of {path.name} is not what was written")
        self._start = len(head)
        try:
            parts = msgspec.json.decode(head[8:], type=dict[str, msgspec.Raw])
            metadata = msgspec.json.decode(parts.pop("__metadata__"), type=dict[str, str])
            if (found := metadata["format"]) != FORMAT:
                raise DamagedError(f"{path.name} has the format {found!r:.50}; this version reads {FORMAT!r}")
            if (found := metadata["recipe"]) != recipe:
                raise DamagedError(f"{path.name} holds labels of the recipe {found:.16}, not {recipe:.16}")
            self._tensors = {
                name: msgspec.json.decode(raw, type=_Tensor).data_offsets for name, raw in parts.items()
            }
            self.layout: Layout = tuple(
                Column(*column)
                for column in msgspec.json.decode(
                    metadata["layout"], type=list[tuple[str, str, tuple[_Size, ...]]]
                )
            )
            self._block_bytes = int(metadata["block_bytes"])
            self._digests = bytes.fromhex(metadata["blocks"])
            self.samples = self._length("keys") // KEY_BYTES
            self._check_sizes()
        except (msgspec.DecodeError, KeyError, ValueError) as exc:
            raise DamagedError(f"the header of {path.name} cannot be read: {exc}") from exc
        self._checked = np.zeros(len(self._digests) // _BLOCK_DIGEST, np.bool_)
        self._all_checked = False

    @property
    def checksum(self) -> str:
        """blake2b-256 of the whole file, read anew.

        Raises:
            OSError: it cannot be read.
        """
        digest = hashlib.blake2b(digest_size=32)
        with self.path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    def kept(self) -> KeptRows:
        """Its labels, in mapped memory; keys, witnesses and lengths are checked, labels not yet.

        Raises:
            DamagedError: they are not what was written.
            OSError: it cannot be mapped.
        """
        if self._kept is None:
            with self.path.open("rb") as stream:
                if os.fstat(stream.fileno()).st_size != self.nbytes:
                    raise DamagedError(f"{self.path.name} was cut off")
                mapped = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
            self._data = np.frombuffer(mapped, np.uint8, offset=self._start)
            first = min(self._tensors[LABELS + column.name][0] for column in self.layout)
            self._check_blocks(np.arange(-(-first // self._block_bytes)))
            self._kept = self._map()
        return self._kept

    def check(self, samples: Numbers | None = None) -> None:
        """Compare the labels of some samples, or of all, with what was written.

        Raises:
            DamagedError: they differ.
            OSError: the file cannot be mapped.
        """
        kept = self.kept()
        if self._all_checked:
            return
        if samples is None:
            self._check_blocks(np.arange(len(self._checked)))
            self._all_checked = True
            return
        first, last = (
            (samples, samples + 1) if kept.ends is None else (kept.ends[samples], kept.ends[samples + 1])
        )
        for column in self.layout:
            if not column.row_bytes:
                continue
            at = self._tensors[LABELS + column.name][0]
            starts = (at + first * column.row_bytes) // self._block_bytes
            stops = (at + last * column.row_bytes - 1) // self._block_bytes
            touched = np.zeros(len(self._checked) + 1, np.int64)
            np.add.at(touched, starts, 1)
            np.add.at(touched, np.maximum(starts, stops + 1), -1)
            self._check_blocks(np.flatnonzero(np.cumsum(touched[:-1]) > 0))
        self._all_checked = bool(self._checked.all())

    def _check_blocks(self, blocks: Numbers) -> None:
        for block in blocks[~self._checked[blocks]].tolist():
            data = self._data[block * self._block_bytes : (block + 1) * self._block_bytes].data
            found = hashlib.blake2b(data, digest_size=_BLOCK_DIGEST).digest()
            if found != self._digests[block * _BLOCK_DIGEST : (block + 1) * _BLOCK_DIGEST]:
                raise DamagedError(
                    f"{self.path.name} was changed, in the {len(data):,} bytes from "
                    f"{self._start + block * self._block_bytes:,} on"
                )
            self._checked[block] = True

    def _map(self) -> KeptRows:
        keys: Keys = self._table("keys", KEY_BYTES)
        witness: Keys | None = self._table("witness", KEY_BYTES) if "witness" in self._tensors else None
        ends: Numbers | None = None
        if "lengths" in self._tensors:
            lengths = self._table("lengths", 8).reshape(-1).copy().view(np.int64)
            ends = np.concatenate(([0], np.cumsum(lengths)))
            if len(lengths) != self.samples or (lengths < 1).any() or ends[-1] != self.rows:
                raise DamagedError(f"the lengths in {self.path.name} do not fit its {self.rows} rows")
        tables = [self._table(LABELS + column.name, column.row_bytes) for column in self.layout]
        return KeptRows(self.layout, keys, witness, ends, tables)

    def _table(self, name: str, row_bytes: int) -> Table:
        start, stop = self._tensors[name]
        return self._data[start:stop].reshape(self.rows if not row_bytes else -1, row_bytes)

    def _length(self, name: str) -> int:
        start, stop = self._tensors[name]
        return stop - start

    def _check_sizes(self) -> None:
        """Raise ValueError or KeyError where the parts of the header contradict each other."""
        if self._block_bytes < 1 or not self.samples or not self.layout:
            raise ValueError("it holds no labels")
        data = self.nbytes - self._start
        if any(not 0 <= start <= stop <= data for start, stop in self._tensors.values()):
            raise DamagedError(f"{self.path.name} was cut off")
        if len(self._digests) != -(-data // self._block_bytes) * _BLOCK_DIGEST:
            raise DamagedError(f"{self.path.name} has {self.nbytes:,} bytes, and was written with others")
        sized = [column for column in self.layout if column.row_bytes]
        ragged = "lengths" in self._tensors
        self.rows = self._length(LABELS + sized[0].name) // sized[0].row_bytes if sized else self.samples
        if not (ragged or self.rows == self.samples):
            raise ValueError(f"{self.samples} keys of {self.rows} rows")
        whole = {LABELS + column.name: self.rows * column.row_bytes for column in self.layout}
        whole["keys"] = self.samples * KEY_BYTES
        if "witness" in self._tensors:
            whole["witness"] = self.samples * KEY_BYTES
        if ragged:
            whole["lengths"] = self.samples * 8
        if {name: self._length(name) for name in self._tensors} != whole:
            raise ValueError("its tensors are not as many, or as large, as they must be")


def _entries(kept: KeptRows) -> list[_Entry]:
    """The tensors of a file in their order: what all readers need first, then by the size of an element."""
    entries = []
    if kept.ends is not None:
        lengths = np.diff(kept.ends)
        entries.append(_Entry("lengths", "I64", [kept.samples], lengths.view(np.uint8)))
    for name, rows in (("keys", kept.keys), ("witness", kept.witness)):
        if rows is not None:
            entries.append(_Entry(name, "U8", list(rows.shape), np.ascontiguousarray(rows)))
    order = sorted(range(len(kept.layout)), key=lambda at: -ITEM_BYTES[kept.layout[at].dtype])
    for at in order:
        column, table = kept.layout[at], np.ascontiguousarray(kept.tables[at])
        dtype, shape = _SAFE.get(column.dtype), [len(table), *column.shape]
        if dtype is None:
            dtype, shape = "U8", [*shape, ITEM_BYTES[column.dtype]]
        entries.append(_Entry(LABELS + column.name, dtype, shape, table))
    return entries


def _block_digests(parts: Sequence[memoryview]) -> list[bytes]:
    """Digests of the blocks of some memory that lies one behind the other."""
    digests = []
    digest, left = hashlib.blake2b(digest_size=_BLOCK_DIGEST), BLOCK_BYTES
    for part in parts:
        at = 0
        while at < len(part):
            piece = part[at : at + left]
            digest.update(piece)
            at += len(piece)
            left -= len(piece)
            if not left:
                digests.append(digest.digest())
                digest, left = hashlib.blake2b(digest_size=_BLOCK_DIGEST), BLOCK_BYTES
    if left < BLOCK_BYTES:
        digests.append(digest.digest())
    return digests


def _name_of(head: bytes) -> str:
    return hashlib.blake2b(head, digest_size=_NAME_DIGEST).hexdigest() + SUFFIX
