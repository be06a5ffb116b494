"""What people ask for: numbers of processes, kept in a job's folder and told to its coordinator.

The coordinator decides how many workers a teacher group should have, and holds a number that a person asks
for. It keeps nothing over a restart. So a number is written into the job's folder first, and whoever places
processes there tells it to every new coordinator; a number that somebody told the coordinator itself is
written down by them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from edldist.errors import LaunchError
from edldist.files import lock_file, replace_file

__all__ = ["Wishes", "forget_wishes", "read_wishes", "write_wishes"]

NAME = "asked.json"
LOCK_S = 5.0


class Wishes:
    """Reconciles the numbers of the folder with those that the coordinator holds. Pure.

    Whichever is newer wins: a number of the file that changes is told to the coordinator; one that the
    coordinator holds and was not told is a person's who asked there; a coordinator that has just started
    holds none, and is told them all.

    Attributes:
        kept: by role; a role that is missing is left to the coordinator, or to the job file.
    """

    def __init__(self) -> None:
        self.kept: dict[str, int] = {}
        self._untold: set[str] = set()
        self._incarnation: str | None = None

    def asked(self, numbers: Mapping[str, int]) -> None:
        """The file says this now."""
        roles = {*numbers, *self.kept}
        self._untold |= {role for role in roles if numbers.get(role) != self.kept.get(role)}
        self.kept = dict(numbers)

    def adopt(self, incarnation: str, held: Mapping[str, int | None]) -> bool:
        """The coordinator holds these numbers; whether what is kept has changed by it.

        Args:
            incarnation: of the coordinator.
            held: by teacher group, of all that it scales.
        """
        if incarnation != self._incarnation:
            self._incarnation = incarnation
            self._untold |= {group for group in self.kept if held.get(group) is None}
        before = dict(self.kept)
        for group, number in held.items():
            if group in self._untold:
                continue
            if number is None:
                self.kept.pop(group, None)
            else:
                self.kept[group] = number
        return self.kept != before

    def untold(self, groups: Mapping[str, int | None]) -> dict[str, int | None]:
        """Of these teacher groups, the numbers that the coordinator has not been told yet."""
        return {group: self.kept.get(group) for group in groups if group in self._untold}

    def told(self, group: str) -> None:
        """The coordinator holds the number of this group now."""
        self._untold.discard(group)

    def refused(self, group: str) -> None:
        """The coordinator will not hold it: nobody asks again."""
        self._untold.discard(group)
        self.kept.pop(group, None)


def read_wishes(output: Path) -> dict[str, int] | None:
    """The numbers in a job's folder, by role; None where they cannot be read.

    Args:
        output: the job's folder.
    """
    try:
        document = json.loads((output / NAME).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not all(type(number) is int for number in document.values()):
        return None
    return document


def write_wishes(output: Path, changes: Mapping[str, int | None]) -> None:
    """Change numbers in a job's folder; None forgets a role's. Others' changes at the same time are kept.

    Raises:
        LaunchError: the folder cannot be written.
    """
    path = output / NAME
    try:
        with (output / f".{NAME}.lock").open("a") as lock:
            deadline = time.monotonic() + LOCK_S
            while not lock_file(lock.fileno(), path):
                if time.monotonic() > deadline:
                    raise LaunchError(f"another process has held the lock of {path} for {LOCK_S:g} s")
                time.sleep(0.01)
            numbers = {**(read_wishes(output) or {}), **changes}
            kept = {role: number for role, number in numbers.items() if number is not None}
            replace_file(path, f"{json.dumps(kept)}\n".encode())
    except OSError as exc:
        raise LaunchError(f"cannot write {path}: {exc.strerror or exc}") from exc


def forget_wishes(output: Path) -> None:
    """A new run begins with what its job file says.

    Raises:
        OSError: the file cannot be removed.
    """
    (output / NAME).unlink(missing_ok=True)
