"""The head of a file of labels: what is in it, where, and the digest of each block. Pure."""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec

from edldist.checkpoint.manifest import DamagedError
from edldist.store.layout import Column, Layout
from edldist.store.sample_key import KEY_BYTES

__all__ = [
    "BLOCK_BYTES",
    "FORMAT",
    "LABELS",
    "LENGTH_BYTES",
    "MOST_HEADER_BYTES",
    "SUFFIX",
    "ShardHeader",
    "TensorEntry",
    "block_digest",
    "name_of",
]

SUFFIX = ".safetensors"
LABELS = "labels."
"""Before the name of a tensor of labels."""
FORMAT = "edldist.labels/1"
BLOCK_BYTES = 256 << 10
LENGTH_BYTES = 8
"""The length of the header, before it."""
MOST_HEADER_BYTES = 64 << 20
_BLOCK_DIGEST = 16
_NAME_DIGEST = 16

_Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]


class TensorEntry(msgspec.Struct, frozen=True):
    """A tensor as a safetensors header has it."""

    dtype: str
    shape: list[_Size]
    data_offsets: tuple[_Size, _Size]


class ShardHeader:
    """What the head of a file says, once it was compared with the file's name.

    Args:
        name: of the file.
        head: its first bytes, ``LENGTH_BYTES`` and the header.
        nbytes: of the whole file.
        recipe: digest of what its labels must have been made by.

    Raises:
        DamagedError: it is not what was written, or holds labels of another recipe.

    Attributes:
        start: where the data begins, in bytes.
        offsets: where each tensor begins and ends in the data, by its name in the file.
        layout: of the tensors of labels.
        samples, rows: how many there are.
        ragged: whether samples have lengths.
    """

    def __init__(self, name: str, head: bytes, nbytes: int, recipe: str) -> None:
        self.name = name
        self.nbytes = nbytes
        self.start = len(head)
        if name_of(head) != name:
            raise DamagedError(f"the header of {name} is not what was written")
        try:
            self._read(head[LENGTH_BYTES:], recipe)
            self._check_sizes()
        except (msgspec.DecodeError, KeyError, ValueError, TypeError) as exc:
            raise DamagedError(f"the header of {name} cannot be read: {exc}") from exc

    @property
    def blocks(self) -> int:
        """How many blocks the data has."""
        return len(self._digests) // _BLOCK_DIGEST

    @property
    def first_blocks(self) -> int:
        """How many of them hold lengths, keys and witnesses: what has to be known before any label."""
        first = min(self.offsets[LABELS + column.name][0] for column in self.layout)
        return -(-first // self.block_bytes)

    def check(self, block: int, data: bytes | memoryview) -> None:
        """Compare a block with what was written.

        Raises:
            DamagedError: it differs.
        """
        at = block * _BLOCK_DIGEST
        if block_digest(data) != self._digests[at : at + _BLOCK_DIGEST]:
            raise DamagedError(
                f"{self.name} was changed, in the {len(data):,} bytes from "
                f"{self.start + block * self.block_bytes:,} on"
            )

    def _read(self, text: bytes, recipe: str) -> None:
        parts = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        metadata = msgspec.json.decode(parts.pop("__metadata__"), type=dict[str, str])
        if (found := metadata["format"]) != FORMAT:
            raise DamagedError(f"{self.name} has the format {found!r:.50}; this version reads {FORMAT!r}")
        if (found := metadata["recipe"]) != recipe:
            raise DamagedError(f"{self.name} holds labels of the recipe {found:.16}, not {recipe:.16}")
        self.offsets = {
            name: msgspec.json.decode(raw, type=TensorEntry).data_offsets for name, raw in parts.items()
        }
        columns = msgspec.json.decode(metadata["layout"], type=list[tuple[str, str, tuple[_Size, ...]]])
        self.layout: Layout = tuple(Column(*column) for column in columns)
        self.block_bytes = int(metadata["block_bytes"])
        self._digests = bytes.fromhex(metadata["blocks"])

    def _check_sizes(self) -> None:
        """Raise ValueError or KeyError where parts of the header contradict each other."""
        self.samples = self._length("keys") // KEY_BYTES
        if self.block_bytes < 1 or not self.samples or not self.layout:
            raise ValueError("it holds no labels")
        data = self.nbytes - self.start
        ends = [stop for _, stop in self.offsets.values()]
        if max(ends) != data or len(self._digests) != -(-data // self.block_bytes) * _BLOCK_DIGEST:
            raise DamagedError(f"{self.name} has {self.nbytes:,} bytes, and was written with others")
        self.ragged = "lengths" in self.offsets
        sized = next((column for column in self.layout if column.row_bytes), None)
        self.rows = self.samples if sized is None else self._length(LABELS + sized.name) // sized.row_bytes
        if not self.ragged and self.rows != self.samples:
            raise ValueError(f"{self.samples} keys of {self.rows} rows")
        whole = {LABELS + column.name: self.rows * column.row_bytes for column in self.layout}
        whole["keys"] = self.samples * KEY_BYTES
        if "witness" in self.offsets:
            whole["witness"] = self.samples * KEY_BYTES
        if self.ragged:
            whole["lengths"] = self.samples * 8
        if {name: self._length(name) for name in self.offsets} != whole:
            raise ValueError("its tensors are not as many, or as large, as they must be")

    def _length(self, name: str) -> int:
        start, stop = self.offsets[name]
        return stop - start


def block_digest(data: bytes | memoryview) -> bytes:
    """What a header says of a block."""
    return hashlib.blake2b(data, digest_size=_BLOCK_DIGEST).digest()


def name_of(head: bytes) -> str:
    """The name of a file with this head."""
    return hashlib.blake2b(head, digest_size=_NAME_DIGEST).hexdigest() + SUFFIX
