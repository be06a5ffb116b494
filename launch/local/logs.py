"""The logs of a job on this machine, ``logs/<role>-<id>.log``, as lines that say whose they are.

The trials of a tuning are jobs with folders of their own: ``trials/0007/logs/student-0.log`` is that of
``trial-7/student-0``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edldist_launch.plan.plan import Role
from edldist_launch.record.trials import process_of_trial, trial_folders

__all__ = ["follow_logs", "read_logs"]

LOOK_S = 0.2
MOST_READ_BYTES = 1 << 20


def read_logs(output: Path, roles: Sequence[Role]) -> Iterator[str]:
    """All lines that there are, one process after the other.

    Args:
        output: the job's folder.
    """
    for log in _Logs(output, roles).all():
        yield from log.lines()
        yield from log.rest()


def follow_logs(output: Path, roles: Sequence[Role], ended: Callable[[], bool]) -> Iterator[str]:
    """All lines that there are, then those that come, of processes that come too, until the job has ended.

    Args:
        output: the job's folder.
        ended: whether it has; what was written until then is still told.
    """
    logs = _Logs(output, roles)
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

    def __init__(self, output: Path, roles: Sequence[Role]) -> None:
        self._output = output
        self._roles = roles
        self._known: dict[Path, _Log] = {}

    def all(self) -> list[_Log]:
        """Those of each role after the other; files that are new are there too."""
        trials = trial_folders(self._output)
        for role in self._roles:
            for path in _found(self._output, role):
                self._known.setdefault(path, _Log(path, _process(path)))
            for number, folder in trials:
                for path in _found(folder, role):
                    self._known.setdefault(path, _Log(path, process_of_trial(number, _process(path))))
        return list(self._known.values())


class _Log:
    def __init__(self, path: Path, whose: str) -> None:
        self._path = path
        self._whose = whose
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


def _found(folder: Path, role: Role) -> list[Path]:
    paths = sorted((folder / "logs").glob(_pattern(role)), key=_place)
    return [path for path in paths if _is_of(role, path)]


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
