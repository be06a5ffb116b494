"""One live job per checkpoint directory."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

from edldist.errors import CheckpointError
from edldist.files import lock_file

__all__ = ["DirectoryLock", "close_in_children", "was_closed"]

# How long a dying predecessor may still hold the lock: the kernel frees a killed process's memory first.
HANDOVER_S = 5.0
POLL_S = 0.05

_descriptors: set[int] = set()
_watching_forks = False


def close_in_children(descriptor: int) -> None:
    """Have the descriptor of a lock closed in forked children from now on.

    A data-loader worker that outlives its parent would keep the lock held otherwise.
    """
    global _watching_forks
    _descriptors.add(descriptor)
    if not _watching_forks:
        _watching_forks = True
        os.register_at_fork(after_in_child=_close_all)


def was_closed(descriptor: int) -> None:
    """The number may be another file's from now on. Harmless when repeated."""
    _descriptors.discard(descriptor)


def _close_all() -> None:
    for descriptor in _descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()


class DirectoryLock:
    """An flock on a file, held until `release` or the death of this process, however it dies.

    Does not protect file systems that have no locks; see ``edldist.files``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._pid = 0

    def acquire(self) -> None:
        """Take the lock, waiting up to `HANDOVER_S` for a process that is just ending.

        Raises:
            CheckpointError: another job holds it; names its process and host.
            OSError: the file cannot be made.
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + HANDOVER_S
        try:
            while not lock_file(descriptor, self.path.parent):
                if time.monotonic() >= deadline:
                    holder = os.pread(descriptor, 500, 0).decode(errors="replace").strip()
                    busy = CheckpointError(
                        f"the checkpoint directory {self.path.parent} is in use by another job "
                        f"({holder or 'unknown process'}): give this job another one, or end that one"
                    )
                    busy.final = False  # the holder may be this job's own frozen rank, about to be killed
                    raise busy
                time.sleep(POLL_S)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor, self._pid = descriptor, os.getpid()
        close_in_children(descriptor)
        with contextlib.suppress(OSError):  # a full disk: the lock holds without its text
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def release(self) -> None:
        """Let go; does nothing if this process does not hold the lock."""
        descriptor, self._descriptor = self._descriptor, None
        # A forked child's copy is closed already, and its number may be another file's by now.
        if descriptor is not None and self._pid == os.getpid():
            was_closed(descriptor)
            os.close(descriptor)
