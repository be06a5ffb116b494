"""Which cores the threads of a benchmark run on: one for each rank's training, the others for the rest."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Set

import psutil

__all__ = ["own_core", "share_cores", "spare_cores"]


def spare_cores(ranks: int) -> frozenset[int]:
    """The cores that are left when each rank has one; none where there are no more of them than ranks."""
    return frozenset(sorted(os.sched_getaffinity(os.getpid()))[ranks:])


def share_cores(pid: int, cores: Set[int]) -> None:
    """Keep a process, its threads and its children to some cores; what they start later stays there, too."""
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(pid).children():
            share_cores(child.pid, cores)
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), cores)


def own_core(rank: int, cores: Set[int], spare: Set[int]) -> None:
    """Let the calling thread have a core; the rest of its process, and its children, share the spare ones.

    Args:
        rank: whose core it is, of those that are not spare.
        cores: all that there are.
        spare: none: every thread may run anywhere.
    """
    share_cores(os.getpid(), spare or cores)
    if spare:
        os.sched_setaffinity(0, {sorted(cores - spare)[rank]})
