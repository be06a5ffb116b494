"""The notes that ranks leave for the supervisor of their node; they vanish with it, however it ends."""

from __future__ import annotations

import contextlib
import os
import tempfile
from types import TracebackType

__all__ = ["RankNotes"]


class RankNotes:
    """A file to append to, under a path that works while this process lives; a context manager.

    On Linux it lies in memory and is reached through this process's descriptor, so that a kill -9
    leaves nothing behind; elsewhere it is a temporary file. Processes of other users cannot reach it.
    """

    def __init__(self) -> None:
        self._file: str | None = None
        if hasattr(os, "memfd_create"):
            self._fd = os.memfd_create("edldist-rank-notes", os.MFD_CLOEXEC)
            self.path = f"/proc/{os.getpid()}/fd/{self._fd}"
        else:
            self._fd, self.path = tempfile.mkstemp(prefix="edldist-node-")
            self._file = self.path

    def read(self) -> str:
        """Everything that was noted so far."""
        return os.pread(self._fd, os.fstat(self._fd).st_size, 0).decode("utf-8", errors="replace")

    def __enter__(self) -> RankNotes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._fd)
        if self._file is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._file)
