"""Whether a file is private enough for what is in it: a secret, or who is let in.

Whoever owns a file can read and write it, whatever its mode says: it has to be this user, or root.

A file that belongs to root may be readable for a group of this process's: that is how Kubernetes mounts
secrets for pods that are not root, whose ``fsGroup`` it gives them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from edldist.errors import ConfigError

__all__ = ["check_readers", "check_writers", "read_bounded", "read_token"]

_MOST_BYTES = 4096
_LEAST_TOKEN = 16
"""Characters of a token: a shorter one is soon guessed, where thousands may be tried in a second."""


def check_readers(path: Path, what: str) -> None:
    """Refuse a secret that others can read.

    Args:
        what: it is: ``the secret key``.

    Raises:
        ConfigError: they can, or it cannot be looked at; with the command that mends it.
    """
    state = _stat(path)
    if state.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"{what} {path} belongs to user {state.st_uid}, who can read it: chown {os.geteuid()} {path}, "
            "and make a new one if that is somebody else"
        )
    for_root = state.st_uid == 0 and os.geteuid() != 0
    if state.st_mode & (0o037 if for_root else 0o077):
        raise ConfigError(
            f"others can read {what} {path}: chmod 600 {path}, and make a new one if somebody did"
        )


def check_writers(path: Path, what: str) -> None:
    """Refuse a file, or a folder, that others can write. One that is not there is nobody's.

    Args:
        what: they could do by that: ``let anybody in``.

    Raises:
        ConfigError: they can, or it cannot be looked at; with the command that mends it.
    """
    with contextlib.suppress(FileNotFoundError):
        state = _stat(path, missing_ok=True)
        if _is_read_only(path):
            return
        if state.st_uid not in (0, os.geteuid()):
            raise ConfigError(
                f"{path} belongs to user {state.st_uid}, who can write it, and {what}: "
                f"chown {os.geteuid()} {path}"
            )
        mode = state.st_mode
        guarded = stat.S_ISDIR(mode) and mode & stat.S_ISVTX  # there, nobody replaces another user's files
        if mode & 0o022 and not guarded:
            raise ConfigError(f"others can write {path}, and {what}: chmod go-w {path}")


def read_bounded(path: Path, most: int) -> bytes:
    """What is in a file, up to ``most`` bytes and one more. Never waits for whoever writes into a pipe.

    Raises:
        OSError: it cannot be read, or it is no file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no file", os.fspath(path))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most + 1)
    finally:
        os.close(descriptor)


def read_token(path: Path, what: str) -> str:
    """The word in a file, which others cannot read.

    Args:
        what: names the file: ``--http-token-file``.

    Raises:
        ConfigError: others can read it, or nobody can, or there is no word in it, or a short one. Its content
            is not shown.
    """
    check_readers(path, f"the token of {what}")
    try:
        words = read_bounded(path, _MOST_BYTES).decode("ascii").split()
    except OSError as exc:
        raise ConfigError(f"{what}: cannot read {path}: {exc.strerror}") from exc
    except ValueError:  # whose words may hold a part of the secret
        words = []
    if len(words) != 1 or len(words[0]) > _MOST_BYTES - 1:
        raise ConfigError(
            f"{what}: {path} holds no token: one word of printable ASCII, such as head -c 24 /dev/urandom | "
            "base64 makes"
        )
    if len(words[0]) < _LEAST_TOKEN:
        raise ConfigError(
            f"{what}: the token in {path} has {len(words[0])} characters, and is soon guessed: it needs "
            f"{_LEAST_TOKEN}, such as head -c 24 /dev/urandom | base64 makes"
        )
    return words[0]


def _is_read_only(path: Path) -> bool:
    """Whether nobody here can write there, whatever the mode says: as a Secret is mounted."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _stat(path: Path, missing_ok: bool = False) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError as exc:
        if missing_ok:
            raise
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
