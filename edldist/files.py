"""What edldist asks of a file system, and one rule for those that can do less than ext4.

Network file systems answer some calls with "not here": Lustre mounted without ``flock`` says ENOSYS, others
EOPNOTSUPP, ENOLCK or EINVAL, also to an fsync of a folder. None of these calls is worth a job: what they
would have guarded against is said once for each file system and call, and the work goes on. Any other error
(no space, a broken disk, no permission) is the caller's to answer.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from pathlib import Path

__all__ = ["lacks_locks", "lock_file", "replace_file", "sync"]

logger = logging.getLogger(__name__)

NOT_HERE = frozenset(
    (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL, errno.ENOTTY)
)
"""Answers of a file system that does not know a call, or this kind of file with it."""

_LOCKS = "locks"
_said: set[tuple[int, str]] = set()


def lock_file(descriptor: int, path: Path) -> bool:
    """Take an exclusive flock without waiting: True if it is held, or if there are no locks here.

    Args:
        descriptor: open for writing; the lock ends with its last copy.
        path: what is locked, for the warning.

    Returns:
        False: another process holds it.

    Raises:
        OSError: the lock cannot be taken, for another reason than that the file system has none.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as exc:
        _forgive(exc, descriptor, path, _LOCKS, "a second job that writes there is not noticed")
    return True


def lacks_locks(descriptor: int) -> bool:
    """Whether ``lock_file`` has found that the file system of this file has no locks."""
    return (os.fstat(descriptor).st_dev, _LOCKS) in _said


def sync(path: Path) -> None:
    """Have a file's content, or a folder's entries, on the disk when this returns.

    Raises:
        OSError: the disk did not take it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as exc:
        what = "fsync of folders" if path.is_dir() else "fsync"
        _forgive(exc, descriptor, path, what, "what was saved last may be lost if the machine crashes")
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write a file as a whole: readers, and a crash, see the former content or the new one.

    Args:
        private: nobody but this user may read it (mode 0600).

    Raises:
        OSError: it was not written; the former content stands.
    """
    draft = path.with_name(f".{path.name}.new")
    try:
        if private:
            draft.unlink(missing_ok=True)
            os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        draft.write_bytes(content)
        sync(draft)
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)  # it may hold the space that others need
        raise


def _forgive(exc: OSError, descriptor: int, path: Path, what: str, so: str) -> None:
    """Say once for a file system what it cannot do; raise every other error."""
    if exc.errno not in NOT_HERE:
        raise exc
    known = (os.fstat(descriptor).st_dev, what)
    if known not in _said:
        _said.add(known)
        logger.warning("the file system of %s has no %s (%s): %s", path, what, exc.strerror, so)
