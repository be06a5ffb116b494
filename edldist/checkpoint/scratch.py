"""A process's own place for files on their way to or from an object store."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
import time
import weakref
from pathlib import Path

from edldist.checkpoint.lock import close_in_children, was_closed

__all__ = ["Scratch"]

logger = logging.getLogger(__name__)

PREFIX = "edldist-checkpoint-"
# Between its making and its locking a folder looks like a dead process's.
SETTLING_S = 5.0


class Scratch:
    """One temporary folder with folders in it, made on first use.

    It is removed by `close`, when this object is collected, and when the interpreter ends. A process that is
    killed leaves it behind; the next of this host and user that makes one removes it. A lock on the folder
    tells the living from the dead: process ids would not, among containers that share ``/tmp``.

    Used by one thread at a time.
    """

    def __init__(self) -> None:
        self._root: Path | None = None
        self._finalizer: weakref.finalize[..., Scratch] | None = None

    def folder(self, name: str) -> Path:
        """The folder of that name, made if it is not there."""
        if self._root is None:
            remove_abandoned()
            root = Path(tempfile.mkdtemp(prefix=PREFIX))
            descriptor = _lock(root)
            self._root = root
            self._finalizer = weakref.finalize(self, _remove, root, descriptor, os.getpid())
        folder = self._root / name
        folder.mkdir(parents=True, exist_ok=True)  # whatever cleans up there may have taken the root too
        return folder

    def remove(self, name: str) -> None:
        """Remove a folder and all in it; does nothing if it is not there."""
        if self._root is not None:
            shutil.rmtree(self._root / name, ignore_errors=True)

    def close(self) -> None:
        """Remove everything; may be called again, and what follows begins anew."""
        if self._finalizer is not None:
            self._finalizer()
        self._root = self._finalizer = None


def remove_abandoned() -> None:
    """Remove what killed processes left in the directory for temporary files."""
    place = Path(tempfile.gettempdir())
    for root in place.glob(f"{PREFIX}*"):
        try:
            found = root.stat()
        except OSError:
            continue
        if found.st_uid != os.getuid() or time.time() - found.st_mtime < SETTLING_S:
            continue
        descriptor = _lock(root)
        if descriptor is not None:
            logger.info("removing %s, left by a process that was killed", root)
            _remove(root, descriptor, os.getpid())


def _lock(root: Path) -> int | None:
    """An flock on the folder itself, or None where another process has it or there are no locks."""
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # Not ``edldist.files``: without locks nobody can tell whether a leftover has an owner, so it stays.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    close_in_children(descriptor)
    return descriptor


def _remove(root: Path, descriptor: int | None, pid: int) -> None:
    if os.getpid() != pid:
        return  # a forked child's copy of the object
    shutil.rmtree(root, ignore_errors=True)
    if descriptor is not None:
        was_closed(descriptor)
        with contextlib.suppress(OSError):
            os.close(descriptor)
