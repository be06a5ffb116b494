"""Who of edldist computes on this machine now, and the part of its CPUs that each of them gets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, MutableMapping, Sequence

import psutil

from edldist.cpus import usable_cpus

__all__ = ["commands_here", "limit_threads", "sharers_of"]

_ROLES = ("bench", "coordinator", "run", "status", "student", "teacher", "tune")

_PROGRAMS = ("edldist", "edldist_launch", os.path.join("launch", "__main__.py"))


def commands_here() -> Iterator[Sequence[str]]:
    """The command lines of all other processes of this machine, as far as one may see them."""
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid():
                yield process.cmdline()
        except psutil.Error:
            continue


def sharers_of(role: str, commands: Iterable[Sequence[str]]) -> int:
    """How many of these command lines are ``edldist teacher`` or ``edldist student``.

    Args:
        role: ``teacher`` or ``student``.
    """
    return sum(_role(command) == role for command in commands)


def limit_threads(environment: MutableMapping[str, str], sharers: int) -> int | None:
    """Give each of ``sharers`` processes its part of the cores, unless the user chose already.

    Args:
        environment: of the processes; ``OMP_NUM_THREADS`` is set in place.
        sharers: how many processes compute at the same time on this machine.

    Returns:
        The number of threads, or None when ``OMP_NUM_THREADS`` was set before.
    """
    if environment.get("OMP_NUM_THREADS"):  # an empty one is none, as libraries see it
        return None
    threads = max(1, usable_cpus() // max(1, sharers))
    environment["OMP_NUM_THREADS"] = str(threads)
    return threads


def _role(command: Sequence[str]) -> str:
    """What of edldist a command line runs, itself or through an interpreter; empty: something else."""
    for at, part in enumerate(command[:4]):
        if part.endswith(_PROGRAMS) and (at == 0 or "python" in os.path.basename(command[0])):
            return next((word for word in command[at + 1 :] if word in _ROLES), "")
    return ""
