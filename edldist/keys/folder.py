"""A folder of keys: what is in it, who may read it, and how it is made, rotated and read.

::

    DIR/known.json          every public key of the job, by role: no secret
    DIR/coordinator.key     a pair each, with its secret: for that role's machines, and for nobody else
    DIR/teacher.key         (mode 0600)
    DIR/student.key
    DIR/operator.key

A machine needs ``known.json`` and the key of its role. Whoever can write ``known.json`` can let himself in,
and whoever can read a ``.key`` can be its role: both are checked each time that they are read.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec
import zmq

from edldist.errors import ConfigError
from edldist.files import replace_file
from edldist.keys.keyring import Keyring, Known
from edldist.keys.pair import ROLES, KeyPair, a_role, new_pair
from edldist.keys.private import check_readers, check_writers, read_bounded

__all__ = ["KNOWN", "KeyFolder"]

KNOWN = "known.json"
_FORMAT = 1
_MOST_BYTES = 1 << 20
_Z85 = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_ANEW = "Copy it anew from where edldist keygen wrote it"
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


class _KnownKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    role: str
    name: str
    public: str
    until: float | None = None


class _KnownFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    keys: list[_KnownKey]


class _PairFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    role: str
    name: str
    public: str
    secret: str


class KeyFolder:
    """One folder of keys."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # --- reading ------------------------------------------------------------------------------

    def ring(self, role: str) -> Keyring:
        """What a process of a role knows.

        Raises:
            ConfigError: a file is missing, damaged, or readable or writable for others; the key was retired.
        """
        known, own = self.known(), self._own(role)
        ring = Keyring(own, known)
        found = next((each for each in known if each.public == own.public), None)
        if found is None or found.role != role:
            raise ConfigError(
                f"{self._file(own)} is not among the keys of {self.path / KNOWN}: it was retired, or these "
                "are of two folders. Copy both from the folder that edldist keygen wrote last"
            )
        if not found.counts(time.time()):
            ended = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(found.until))
            raise ConfigError(
                f"{self._file(own)} was retired at {ended}, after a newer one was made. Copy that one and "
                f"{KNOWN} here"
            )
        return ring

    def known(self) -> list[Known]:
        """All public keys.

        Raises:
            ConfigError: the file is missing, damaged, or writable for others.
        """
        path = self.path / KNOWN
        check_writers(self.path, "let anybody in")
        raw = _read(path, "it lists the public keys of the job; edldist keygen writes it")
        check_writers(path, "let anybody in")
        try:
            file = msgspec.json.decode(raw, type=_KnownFile)
        except msgspec.MsgspecError as exc:
            raise ConfigError(
                f"{path} is damaged: {exc}. Copy it anew from where edldist keygen wrote it"
            ) from exc
        _check_format(path, file.format)
        for each in file.keys:
            if each.role not in ROLES or not _Z85.fullmatch(each.public):
                raise ConfigError(
                    f"{path}: the key of {each.role!r}, {each.name!r}, is none. Copy the file anew"
                )
        return [Known(*msgspec.structs.astuple(each)) for each in file.keys]

    def contents(self, roles: Collection[str]) -> dict[str, str]:
        """What the files of some roles hold, under the names that one machine of each gives them.

        Raises:
            ConfigError: one is missing, damaged, readable for others or retired.
        """
        for role in roles:
            self.ring(role)
        paths = {f"{role}.key": self._path(role) for role in roles} | {KNOWN: self.path / KNOWN}
        return {name: _read(path, "it was there just now").decode() for name, path in paths.items()}

    def signature(self) -> tuple[object, ...]:
        """Another value once a file of it was replaced."""
        found: list[object] = []
        with contextlib.suppress(OSError):
            for entry in sorted(os.scandir(self.path), key=lambda each: each.name):
                with contextlib.suppress(OSError):
                    state = entry.stat()
                    found.append((entry.name, state.st_ino, state.st_size, state.st_mtime_ns))
        return tuple(found)

    def _path(self, role: str) -> Path:
        """The file of a role's only key here."""
        paths = [self.path / f"{role}.key"]
        if not paths[0].exists():
            paths = sorted(self.path.glob(f"{role}-*.key"))
        if len(paths) != 1:
            what = "has several: " + ", ".join(path.name for path in paths) if paths else "has none"
            raise ConfigError(
                f"{self.path} {what} of the keys that {a_role(role)} needs: put {role}.key, or one "
                f"{role}-NAME.key, there (edldist keygen makes it)"
            )
        return paths[0]

    def _own(self, role: str) -> KeyPair:
        path = self._path(role)
        check_readers(path, "the secret key")
        raw = _read(path, f"{a_role(role)} proves by it who it is")
        try:
            file = msgspec.json.decode(raw, type=_PairFile)
        except msgspec.MsgspecError as exc:  # whose words may hold a part of the secret
            raise ConfigError(f"{path} is damaged. {_ANEW}") from exc
        _check_format(path, file.format)
        if file.role != role:
            raise ConfigError(
                f"{path} is a key for the role {file.role!r}, and stands where one for {role!r} should"
            )
        if not _is_pair(file.public, file.secret):
            raise ConfigError(f"{path} is damaged: its two halves are not of one pair. {_ANEW}")
        return KeyPair(file.role, file.name, file.public, file.secret)

    def _file(self, pair: KeyPair) -> Path:
        return self.path / (f"{pair.name}.key" if pair.name == pair.role else f"{pair.role}-{pair.name}.key")

    # --- writing ------------------------------------------------------------------------------

    def make(self) -> list[KeyPair]:
        """A pair for each role, in a new folder.

        Raises:
            ConfigError: there are keys already, or the folder cannot be written.
        """
        if (self.path / KNOWN).exists() or any(self.path.glob("*.key")):
            raise ConfigError(
                f"{self.path} has keys: edldist keygen --rotate {self.path} replaces them, under running jobs"
            )
        pairs = [new_pair(role, role) for role in ROLES]
        self._write(pairs, [Known(pair.role, pair.name, pair.public) for pair in pairs])
        return pairs

    def add(self, role: str, name: str) -> KeyPair:
        """One more pair of a role, for one machine or person.

        Raises:
            ConfigError: the role or the name is none, or the name has a key.
        """
        if role not in ROLES:
            raise ConfigError(f"{role!r} is no role: use one of {', '.join(ROLES)}")
        if not _NAME.fullmatch(name) or name in ROLES:
            raise ConfigError(
                f"{name!r} cannot name a key: use up to 63 lower-case letters, digits, '-' and '.'"
            )
        known = self.known()
        if any((each.role, each.name) == (role, name) for each in known):
            raise ConfigError(
                f"{self.path} has a key of {role} {name!r}; edldist keygen --rotate replaces all of them"
            )
        pair = new_pair(role, name)
        self._write([pair], [Known(role, name, pair.public), *known])
        return pair

    def rotate(self, keep_s: float) -> list[KeyPair]:
        """A new pair in the place of each; the former ones count for ``keep_s`` more seconds.

        Raises:
            ConfigError: there are none, or the folder cannot be written.
        """
        known, now = self.known(), time.time()
        current = [each for each in known if each.until is None]
        pairs = [new_pair(each.role, each.name) for each in current]
        former = [
            each._replace(until=now + keep_s) if each.until is None else each
            for each in known
            if each.counts(now)
        ]
        self._write(pairs, [*(Known(pair.role, pair.name, pair.public) for pair in pairs), *former])
        return pairs

    def retire(self) -> int:
        """Let former keys count no more; how many there were.

        Raises:
            ConfigError: there are no keys, or the folder cannot be written.
        """
        known = self.known()
        kept = [each for each in known if each.until is None]
        self._write([], kept)
        return len(known) - len(kept)

    def _write(self, pairs: Sequence[KeyPair], known: Sequence[Known]) -> None:
        """Public keys first, so that nobody proves one that others do not know."""
        listed = _KnownFile(_FORMAT, [_KnownKey(*each) for each in known])
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_writers(self.path, "read the keys that are about to be made, and let anybody in")
            _replace(self.path / KNOWN, msgspec.json.format(msgspec.json.encode(listed)) + b"\n", 0o644)
            for pair in pairs:
                content = msgspec.json.encode(_PairFile(_FORMAT, *pair))
                _replace(self._file(pair), msgspec.json.format(content) + b"\n", 0o600)
        except OSError as exc:
            raise ConfigError(f"cannot write keys into {self.path}: {exc.strerror}") from exc


def _replace(path: Path, content: bytes, mode: int) -> None:
    before = os.umask(0o777 & ~mode)
    try:
        replace_file(path, content, private=mode == 0o600)
    finally:
        os.umask(before)


def _read(path: Path, what: str) -> bytes:
    try:
        raw = read_bounded(path, _MOST_BYTES)
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror} ({what})") from exc
    if len(raw) > _MOST_BYTES:
        raise ConfigError(f"{path} has more than {_MOST_BYTES} bytes: it is no file of edldist keygen's")
    return raw


def _check_format(path: Path, number: int) -> None:
    if number != _FORMAT:
        raise ConfigError(
            f"{path} is of format {number}, and this edldist reads format {_FORMAT}: install the newer one"
        )


def _is_pair(public: str, secret: str) -> bool:
    if not (_Z85.fullmatch(public) and _Z85.fullmatch(secret)):
        return False
    return zmq.curve_public(secret.encode()).decode() == public
