"""The command line and the environment of a student's process group."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import MutableMapping, Sequence

from edldist.config import node_range
from edldist.errors import ConfigError
from launch.child import tied_command

__all__ = ["limit_threads", "torchrun_command"]


def torchrun_command(
    script: str,
    args: Sequence[str],
    *,
    nnodes: str = "1",
    nproc_per_node: int = 1,
    max_restarts: int = 3,
) -> list[str]:
    """The command that runs ``script`` on ``nproc_per_node`` ranks of this node.

    Every rank is tied to its agent: agents start ranks in sessions of their own, and one that is
    killed leaves them behind otherwise. A rank whose agent is gone can no longer be told anything,
    so it is killed and not asked.

    Raises:
        ConfigError: ``nnodes`` has no valid form, or asks for more than one node.
    """
    try:
        bounds = node_range(nnodes)
    except ValueError as exc:
        raise ConfigError(f"nnodes: {nnodes!r} is not allowed: {exc}") from exc
    if bounds != (1, 1):
        raise ConfigError(
            f"nnodes: {nnodes!r} is not possible yet: elastic node ranges need a rendezvous store outside "
            'the student nodes, which this version does not have. Use "1"'
        )
    return [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--standalone", "--nnodes=1", f"--nproc-per-node={nproc_per_node}"),
        *(f"--max-restarts={max_restarts}", "--no-python"),
        *tied_command([sys.executable, "-u", script], parent=0, signum=signal.SIGKILL),
        *args,
    ]


def limit_threads(environment: MutableMapping[str, str], sharers: int) -> int | None:
    """Give each of ``sharers`` processes its part of the cores, unless the user chose already.

    Args:
        environment: of the processes; ``OMP_NUM_THREADS`` is set in place.
        sharers: how many processes compute at the same time on this machine.

    Returns:
        The number of threads, or None when ``OMP_NUM_THREADS`` was set before.
    """
    if "OMP_NUM_THREADS" in environment:
        return None
    threads = max(1, available_cores() // max(1, sharers))
    environment["OMP_NUM_THREADS"] = str(threads)
    return threads


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
