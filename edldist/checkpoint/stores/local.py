"""Checkpoints in directories of this machine or of a shared file system."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from edldist.checkpoint.lock import DirectoryLock
from edldist.checkpoint.manifest import MARKER, FileEntry
from edldist.errors import CheckpointError
from edldist.files import sync

__all__ = ["LocalStore"]

logger = logging.getLogger(__name__)


class LocalStore:
    """Checkpoints as directories ``step-00000120`` that all ranks see.

    Draft directories are named ``step-00000120.partial-<nonce>`` and renamed on commit. A checkpoint that is
    replaced or deleted is first renamed, so that a directory under a final name is always whole.
    """

    lists_drafts = False
    on_disk = True
    _FINAL = re.compile(r"step-(\d{8,})")
    _LEFTOVER = re.compile(r"(step-\d{8,})\.(partial|replaced|deleted)-[0-9a-f]+")

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))
        self.url = str(self.root)
        self._lock = DirectoryLock(self.root / ".lock")

    def prepare(self) -> None:
        try:
            os.makedirs(self.root, exist_ok=True)
            self._lock.acquire()
        except OSError as exc:
            unusable = CheckpointError(
                f"the checkpoint directory {self.root} cannot be used: {exc.strerror or exc}. "
                "Choose another directory, or make this one writable"
            )
            unusable.final = isinstance(exc, PermissionError | NotADirectoryError | FileExistsError)
            raise unusable from exc
        for entry in sorted(os.listdir(self.root)):
            match = self._LEFTOVER.fullmatch(entry)
            if match and match[2] == "replaced" and not (self.root / match[1]).exists():
                # Died between the two renames of a commit: the old one is still the best there is.
                os.rename(self.root / entry, self.root / match[1])
                logger.warning("put back %s in %s, whose replacement was interrupted", match[1], self.root)
            elif match:
                logger.info("removing %s, left by an interrupted save in %s", entry, self.root)
                self.discard(entry)
            elif entry.startswith(f"{self._lock.path.name}."):  # of one that died while it took the lock
                (self.root / entry).unlink(missing_ok=True)

    def guard(self) -> None:
        self._lock.check()

    def release(self) -> None:
        self._lock.release()

    def checkpoints(self) -> list[tuple[int, str]]:
        matches = (self._FINAL.fullmatch(entry) for entry in os.listdir(self.root))
        return sorted(((int(m[1]), m[0]) for m in matches if m), reverse=True)

    def begin(self, step: int) -> str:
        os.makedirs(self.root, exist_ok=True)
        draft = f"step-{step:08d}.partial-{secrets.token_hex(4)}"
        os.mkdir(self.root / draft)
        return draft

    def folder(self, draft: str) -> Path:
        return self.root / draft

    def seal(self, draft: str, files: Iterable[str]) -> None:
        for file in files:
            sync(self.root / draft / file)
        sync(self.root / draft)

    def size(self, draft: str, file: str) -> int:
        return os.stat(self.root / draft / file).st_size

    def commit(self, draft: str, marker: bytes) -> str:
        name = draft.partition(".")[0]
        (self.root / draft / MARKER).write_bytes(marker)
        self.seal(draft, [MARKER])
        replaced = ""
        if (self.root / name).exists():
            replaced = f"{name}.replaced-{secrets.token_hex(4)}"
            os.rename(self.root / name, self.root / replaced)
        try:
            os.rename(self.root / draft, self.root / name)
        except FileNotFoundError:  # another group took the place just now, and removed what was not finished
            if replaced:
                os.rename(self.root / replaced, self.root / name)
            raise
        sync(self.root)
        if replaced:
            self.discard(replaced)
        return name

    def discard(self, draft: str) -> None:
        try:
            shutil.rmtree(self.root / draft)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as exc:
            logger.warning("cannot remove %s: %s", self.root / draft, exc)

    def forget(self, draft: str) -> None:
        pass

    def open(self, name: str, file: str) -> BinaryIO:
        return open(self.root / name / file, "rb")

    @contextlib.contextmanager
    def fetch(self, name: str, files: dict[str, FileEntry]) -> Iterator[Path]:
        yield self.root / name

    def delete(self, name: str) -> None:
        doomed = f"{name}.deleted-{secrets.token_hex(4)}"
        os.rename(self.root / name, self.root / doomed)
        self.discard(doomed)
