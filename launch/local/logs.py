"""The logs of a job on this machine, ``logs/<role>-<id>.log``, as lines that say whose they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edldist_launch.plan.plan import Role

__all__ = ["follow_logs", "read_logs"]

LOOK_S = 0.2
MOST_READ_BYTES = 1 << 20


def read_logs(places: Path, roles: Sequence[Role]) -> Iterator[str]:
    """All lines that there are, one process after the other."""
    for log in _Logs(places, roles).all():
        yield from log.lines()
        yield from log.rest()


def follow_logs(places: Path, roles: Sequence[Role], ended: Callable[[], bool]) -> Iterator[str]:
    """All lines that there are, then those that come, of processes that come too, until the job has ended.

    Args:
        ended: whether it has; what was written until then is still told.
    """
    logs = _Logs(places, roles)
    while True:
        last = ended()
        for log in logs.all():
            yield from log.lines()
        if last:
            break
        time.sleep(LOOK_S)
    for log in logs.all():
        yield from log.rest()


class _Logs:
    """The files of some roles, each read on from where it was left."""

    def __init__(self, places: Path, roles: Sequence[Role]) -> None:
        self._places = places
        self._roles = roles
        self._known: dict[Path, _Log] = {}

    def all(self) -> list[_Log]:
        """Those of each role after the other; files that are new are there too."""
        for role in self._roles:
            for path in sorted(self._places.glob(_pattern(role)), key=_place):
                if path not in self._known and _is_of(role, path):
                    self._known[path] = _Log(path)
        return list(self._known.values())


class _Log:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._whose = _process(path)
        self._at = 0
        self._open = b""

    def lines(self) -> Iterator[str]:
        """Whole lines that were not read yet."""
        while data := self._read():
            *lines, self._open = (self._open + data).split(b"\n")
            for line in lines:
                yield self._told(line)

    def rest(self) -> Iterator[str]:
        """What was written without an end of line, if nothing follows it."""
        if self._open:
            yield self._told(self._open)
            self._open = b""

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._at)
                data = stream.read(MOST_READ_BYTES)
        except OSError:
            return b""
        self._at += len(data)
        return data

    def _told(self, line: bytes) -> str:
        return f"{self._whose}: {line.decode(errors='replace')}"


def _pattern(role: Role) -> str:
    if role.kind == "prepare":
        return "prepare.log"
    return f"teacher-{role.name}-*.log" if role.kind == "teacher" else f"{role.kind}-*.log"


def _is_of(role: Role, path: Path) -> bool:
    """Whether a log is of a role: a group's name may begin another's."""
    number = path.stem.rpartition("-")[2]
    return role.kind == "prepare" or (number.isdigit() and path.name == _pattern(role).replace("*", number))


def _place(path: Path) -> tuple[int, str]:
    number = path.stem.rpartition("-")[2]
    return (int(number) if number.isdigit() else 0, path.name)


def _process(path: Path) -> str:
    """Whose log it is: ``teacher-0``, ``student-1``, ``coordinator``, ``prepare``."""
    if path.stem.startswith("coordinator-"):
        return "coordinator"
    return path.stem.removeprefix("teacher-") if path.stem.startswith("teacher-") else path.stem
