"""Checkpoints on anything that fsspec reaches: s3://, gs://, memory://, ...

Object stores cannot rename, so the marker object, written last, is the commit. Every rank writes to a
temporary folder of its host and uploads its own files.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from edldist.checkpoint.claim import Claim, SupersededError
from edldist.checkpoint.manifest import MARKER, DamagedError, FileEntry, digest
from edldist.checkpoint.scratch import Scratch
from edldist.errors import ConfigError

__all__ = ["FsspecStore"]

_CLAIM = "CLAIM"


class FsspecStore:
    """Checkpoints as objects below ``URL/step-00000120-<nonce>/``.

    The nonce begins with the time of the save, so that of two saves of one step the later is the newer, and a
    save never overwrites another. Object stores have no locks: of two jobs on the same URL the one that saves
    first is told by its next save that the other took it.
    """

    lists_drafts = True
    on_disk = False
    _FINAL = re.compile(r"step-(\d{8,})-[0-9a-f]{24}")

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            fs, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as exc:
            raise ConfigError(f"the checkpoint directory {url!r} cannot be reached: {exc}") from exc
        self._fs: Any = fs
        self._root = str(root).rstrip("/")
        self._scratch = Scratch()
        self._claim: Claim | None = None

    def prepare(self) -> None:
        self._fs.makedirs(self._root, exist_ok=True)

    def guard(self) -> None:
        """The first save claims the place. A restore does not: whoever only reads takes it from nobody."""
        path = f"{self._root}/{_CLAIM}"
        if self._claim is None:
            claim = Claim.own()
            self._fs.pipe_file(path, claim.encode())
            self._claim = claim
            return
        self._fs.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):  # one that somebody removed says nothing against us
            theirs = Claim.decode(self._fs.cat_file(path))
            if theirs is not None and theirs.nonce != self._claim.nonce:
                raise SupersededError(self.url, self._claim, theirs)

    def release(self) -> None:
        self._scratch.close()

    def checkpoints(self) -> list[tuple[int, str]]:
        self._fs.invalidate_cache()
        try:
            entries = self._fs.ls(self._root, detail=False)
        except FileNotFoundError:
            return []
        matches = (self._FINAL.fullmatch(str(entry).rstrip("/").rpartition("/")[2]) for entry in entries)
        return sorted(((int(m[1]), m[0]) for m in matches if m), reverse=True)

    def begin(self, step: int) -> str:
        return f"step-{step:08d}-{time.time_ns():016x}{secrets.token_hex(4)}"

    def folder(self, draft: str) -> Path:
        return self._scratch.folder(draft)

    def seal(self, draft: str, files: Iterable[str]) -> None:
        self._fs.makedirs(f"{self._root}/{draft}", exist_ok=True)
        for file in files:
            self._fs.put_file(str(self.folder(draft) / file), self._path(draft, file))

    def size(self, draft: str, file: str) -> int:
        self._fs.invalidate_cache()
        return int(self._fs.size(self._path(draft, file)))

    def commit(self, draft: str, marker: bytes) -> str:
        self._fs.pipe_file(self._path(draft, MARKER), marker)
        return draft

    def forget(self, draft: str) -> None:
        self._scratch.remove(draft)

    def discard(self, draft: str) -> None:
        self.forget(draft)
        with contextlib.suppress(Exception):  # the store may be what failed; the next save removes the rest
            self.delete(draft)

    def open(self, name: str, file: str) -> BinaryIO:
        return cast(BinaryIO, self._fs.open(self._path(name, file), "rb"))

    @contextlib.contextmanager
    def fetch(self, name: str, files: dict[str, FileEntry]) -> Iterator[Path]:
        copy = f"{name}.restored"
        folder = self._scratch.folder(copy)
        try:
            for file, expected in files.items():
                local = folder / file
                self._fs.get_file(self._path(name, file), str(local))
                with local.open("rb") as stream:
                    if digest(stream) != expected:
                        raise DamagedError(f"{file} changed on its way from {self.url}/{name}")
            yield folder
        finally:
            self._scratch.remove(copy)

    def delete(self, name: str) -> None:
        self._fs.invalidate_cache()
        # Not asked for with exists(), which takes a network error for a no.
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name, MARKER))  # first: what is left then is no checkpoint
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm(f"{self._root}/{name}", recursive=True)

    def _path(self, name: str, file: str) -> str:
        return f"{self._root}/{name}/{file}"
