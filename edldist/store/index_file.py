"""The list of a shelf's files: ``index.json``, for this and for other tools."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from edldist.checkpoint.manifest import DamagedError
from edldist.errors import StoreError

__all__ = ["INDEX", "INDEX_FORMAT", "INDEX_NAME", "SHARD_NAME", "IndexFile", "ShardEntry"]

INDEX = "index.json"
INDEX_FORMAT = 1
INDEX_NAME = re.compile(r"index(-[0-9a-f]{16})?\.json")
"""The list of all writers that share locks, and those of writers that have none."""
SHARD_NAME = re.compile(r"[0-9a-f]{32}\.safetensors")

_Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 62)]
# Nothing but a name of ours: what an index names is opened, and may be removed.
_FileName = Annotated[str, msgspec.Meta(pattern=f"^{SHARD_NAME.pattern}$")]


class ShardEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One file.

    Attributes:
        file: its name, which is the digest of its header (docs/store.md).
        samples, rows: how many it has; rows are more where a sample is a sequence.
        bytes: its size.
        blake2b: blake2b-256 of all of it, as ``b2sum -l 256`` has it.
        written_unix_s: when; for people.
    """

    file: _FileName
    samples: _Count
    rows: _Count
    bytes: _Count
    blake2b: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
    written_unix_s: float


class IndexFile(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one recipe, oldest first.

    Attributes:
        recipe: its digest.
    """

    format: int = INDEX_FORMAT
    recipe: str
    shards: list[ShardEntry]

    def encode(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"

    @classmethod
    def decode(cls, text: bytes, recipe: str, where: str) -> IndexFile:
        """What ``encode`` made.

        Raises:
            DamagedError: it cannot be.
            StoreError: another revision of edldist made it, or for another recipe.
        """
        try:
            found = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
            revision = msgspec.json.decode(found["format"], type=int)
        except (msgspec.DecodeError, KeyError) as exc:
            raise DamagedError(f"{where} cannot be read: {exc}") from exc
        if revision != INDEX_FORMAT:
            raise StoreError(
                f"{where} has format {revision}, of another revision of edldist; this one reads format "
                f"{INDEX_FORMAT}. Use the edldist that wrote it, or another folder"
            )
        try:
            index = msgspec.json.decode(text, type=cls)
        except msgspec.DecodeError as exc:
            raise DamagedError(f"{where} cannot be read: {exc}") from exc
        if index.recipe != recipe:
            raise StoreError(
                f"{where} lists labels of the recipe {index.recipe!r:.20}, and lies in the folder of "
                f"{recipe:.16}: somebody moved it. Merge stores with 'edldist label', not by moving folders"
            )
        return index
