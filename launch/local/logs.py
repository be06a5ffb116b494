"""The logs of a job on this machine, ``logs/<role>-<id>.log``, as lines that say whose they are.

The trials of a tuning are jobs with folders of their own: ``trials/0007/logs/student-0.log`` is that of
``trial-7/student-0``.
"""

from __future__ import annotations

import contextlib
import math
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edldist_launch.contract.log_order import in_order, timed
from edldist_launch.local.relay import times_path
from edldist_launch.plan.plan import Role
from edldist_launch.record.trials import process_of_trial, trial_folders

__all__ = ["follow_logs", "read_logs"]

LOOK_S = 0.2
MOST_READ_BYTES = 1 << 20


def read_logs(output: Path, roles: Sequence[Role]) -> Iterator[str]:
    """All lines that there are, in their order by time (``log_order``).

    Args:
        output: the job's folder.
    """
    return in_order((log.whose, log.lines(whole=False)) for log in _Logs(output, roles).all())


def follow_logs(output: Path, roles: Sequence[Role], ended: Callable[[], bool]) -> Iterator[str]:
    """All lines that there are, then those that come, of processes that come too, until the job has ended.

    What is there at once is in its order by time (``log_order``).

    Args:
        output: the job's folder.
        ended: whether it has; what was written until then is still told.
    """
    logs = _Logs(output, roles)
    while True:
        last = ended()
        yield from in_order((log.whose, log.lines(whole=not last)) for log in logs.all())
        if last:
            break
        time.sleep(LOOK_S)


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
    """A file that is read on from where it was left, with the times that its relay noted beside it."""

    def __init__(self, path: Path, whose: str) -> None:
        self.whose = whose
        self._path = path
        self._at = 0
        self._open = b""
        self._times = _Times(times_path(path))
        self._latest = -math.inf

    def lines(self, whole: bool = True) -> Iterator[tuple[float, str]]:
        """Lines that were not read yet, with their times.

        Args:
            whole: leave what has no end of line yet for the next time.
        """
        for t, line in timed(self._lines(whole), self._latest):
            self._latest = t
            yield t, line

    def _lines(self, whole: bool) -> Iterator[tuple[float | None, str]]:
        while data := self._read():
            begun_at = self._at - len(data) - len(self._open)
            *lines, self._open = (self._open + data).split(b"\n")
            for line in lines:
                yield self._times.of(begun_at), line.decode(errors="replace")
                begun_at += len(line) + 1
        if self._open and not whole:
            yield self._times.of(self._at - len(self._open)), self._open.decode(errors="replace")
            self._open = b""

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._at)
                data = stream.read(MOST_READ_BYTES)
        except OSError:
            return b""
        self._at += len(data)
        self._times.read()
        return data


class _Times:
    """When which part of a log was written, as its relay noted it (``relay``)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._offsets: list[int] = []
        self._seconds: list[float] = []

    def read(self) -> None:
        """Take in what was noted since the last time."""
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._at)
                data = stream.read()
        except OSError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        for note in whole.splitlines():
            with contextlib.suppress(ValueError):
                offset, seconds = note.split()
                noted = int(offset), float(seconds)
                if not self._offsets or noted[0] >= self._offsets[-1]:
                    self._offsets.append(noted[0])
                    self._seconds.append(noted[1])

    def of(self, offset: int) -> float | None:
        """Unix seconds at about which what begins there was written; None where nobody noted that."""
        place = bisect_right(self._offsets, offset)
        return self._seconds[place - 1] if place else None


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
