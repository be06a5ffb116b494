"""One live job per checkpoint directory, and of one run the latest generation."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path

from edldist.checkpoint.claim import Claim, SupersededError
from edldist.errors import CheckpointError
from edldist.files import lock_file

__all__ = ["DirectoryLock", "close_in_children", "was_closed"]

logger = logging.getLogger(__name__)

# How long a dying predecessor may still hold the lock: the kernel frees a killed process's memory first.
HANDOVER_S = 5.0
POLL_S = 0.05
_MOST_BYTES = 4096

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

    The file holds the owner's claim. One who supersedes the owner does not wait for its death, which may not
    come while it is frozen or cut off: a file of its own takes the place of that one, whose lock is of no use
    to anybody from then on. The former owner finds out by ``check``.

    Does not protect file systems that have no locks; see ``edldist.files``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._claim: Claim | None = None
        self._pid = 0

    def acquire(self) -> None:
        """Take the lock, waiting up to `HANDOVER_S` for a process that is just ending.

        Raises:
            CheckpointError: another job holds it; names its process and host.
            OSError: the file cannot be made.
        """
        claim = Claim.own()
        deadline = time.monotonic() + HANDOVER_S
        while (descriptor := self._try(claim, last=time.monotonic() >= deadline)) is None:
            time.sleep(POLL_S)
        self._descriptor, self._claim, self._pid = descriptor, claim, os.getpid()
        close_in_children(descriptor)
        with contextlib.suppress(OSError):  # a full disk: the lock holds without its text
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, claim.encode(), 0)

    def check(self) -> None:
        """Make sure that nobody has taken the directory since. Does nothing where the lock is not held.

        Raises:
            SupersededError: somebody has.
        """
        ours = self._claim
        if self._descriptor is None or ours is None:
            return
        with contextlib.suppress(OSError):  # a file that somebody removed says nothing against us
            theirs = Claim.decode(self.path.read_bytes())
            if theirs is not None and theirs.nonce != ours.nonce:
                raise SupersededError(str(self.path.parent), ours, theirs)

    def release(self) -> None:
        """Let go; does nothing if this process does not hold the lock."""
        descriptor, self._descriptor = self._descriptor, None
        # A forked child's copy is closed already, and its number may be another file's by now.
        if descriptor is not None and self._pid == os.getpid():
            was_closed(descriptor)
            os.close(descriptor)

    def _try(self, claim: Claim, last: bool) -> int | None:
        """A descriptor with the lock, or None if another process holds it.

        Raises:
            CheckpointError: another holds it, and this is the last try.
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        ours = False
        try:
            if lock_file(descriptor, self.path.parent):
                ours = self._is_in_place(descriptor)
                return descriptor if ours else None
            holder = Claim.decode(os.pread(descriptor, _MOST_BYTES, 0))
        finally:
            if not ours:
                os.close(descriptor)
        if holder is not None and claim.supersedes(holder):
            return self._replace(claim, holder)
        if last:
            busy = CheckpointError(
                f"the checkpoint directory {self.path.parent} is in use by another job "
                f"({holder or 'unknown process'}): give this job another one, or end that one"
            )
            busy.final = False  # the holder may be this job's own frozen rank, about to be killed
            raise busy
        return None

    def _replace(self, claim: Claim, holder: Claim) -> int:
        """Put a file of this process's own in the place of the holder's."""
        draft = self.path.with_name(f"{self.path.name}.{claim.nonce}")
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            lock_file(descriptor, self.path.parent)
            os.pwrite(descriptor, claim.encode(), 0)
            os.rename(draft, self.path)
        except BaseException:
            os.close(descriptor)
            draft.unlink(missing_ok=True)
            raise
        logger.warning(
            "took the checkpoint directory %s from %s, whose generation %d of this run was written off",
            *(self.path.parent, holder, holder.generation),
        )
        return descriptor

    def _is_in_place(self, descriptor: int) -> bool:
        """Whether the file is the one that others find, and not one that was replaced."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        return False
