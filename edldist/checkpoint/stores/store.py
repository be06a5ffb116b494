"""Where checkpoints live: what every kind of place can do."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

from edldist.checkpoint.manifest import FileEntry

__all__ = ["Store"]


class Store(Protocol):
    """A place that holds checkpoints, each a flat set of files under a name.

    A checkpoint is written as a *draft*, which no listing shows as committed, until rank 0 commits it.
    Methods marked (0) are called on rank 0 only.
    """

    url: str

    lists_drafts: bool
    """Whether ``checkpoints`` shows drafts too: then one without its marker is no damaged checkpoint."""

    on_disk: bool
    """Whether the kernel reads the files: then ``EIO`` says that the medium has lost one."""

    def prepare(self) -> None:
        """(0) Make and lock the place, and remove what interrupted saves left behind."""
        ...

    def guard(self) -> None:
        """(0) Make sure that the place is still this group's, before anything is written or removed there.

        Raises:
            SupersededError: another group has taken it.
        """
        ...

    def release(self) -> None:
        """Give up what this process holds: its temporary files, and on rank 0 the place itself."""
        ...

    def checkpoints(self) -> list[tuple[int, str]]:
        """Step and name of every checkpoint, newest first; some may lack their marker."""
        ...

    def begin(self, step: int) -> str:
        """(0) Start a draft and return its name."""
        ...

    def folder(self, draft: str) -> Path:
        """A local folder for this rank's files of the draft."""
        ...

    def seal(self, draft: str, files: Iterable[str]) -> None:
        """Make files of this rank's folder durable."""
        ...

    def size(self, draft: str, file: str) -> int:
        """(0) Bytes of a sealed file of any rank. Raises FileNotFoundError."""
        ...

    def commit(self, draft: str, marker: bytes) -> str:
        """(0) Publish a draft whose files are sealed, and return the checkpoint's name."""
        ...

    def discard(self, draft: str) -> None:
        """(0) Remove a draft that was not committed. Never raises OSError."""
        ...

    def forget(self, draft: str) -> None:
        """Remove what only this rank needed for the draft."""
        ...

    def open(self, name: str, file: str) -> BinaryIO:
        """Read a file. Raises FileNotFoundError."""
        ...

    def fetch(self, name: str, files: dict[str, FileEntry]) -> AbstractContextManager[Path]:
        """A local folder with these files while the context lasts."""
        ...

    def delete(self, name: str) -> None:
        """(0) Remove a checkpoint; interrupted, it leaves no half of one that looks whole."""
        ...
