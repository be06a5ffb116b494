"""The command line and the environment of a student's process group."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import MutableMapping, Sequence

from edldist.errors import ConfigError
from edldist.nodes import node_range
from edldist_launch.child import tied_command

__all__ = ["MAX_SKEW_S", "bounds_of", "limit_threads", "prepare_environment", "torchrun_command"]

KEEP_ALIVE_S = 1
KEEP_ALIVE_ATTEMPTS = 3
MAX_SKEW_S = KEEP_ALIVE_S * (KEEP_ALIVE_ATTEMPTS - 1) / 2
"""How far a node's wall clock may be from the coordinator's. Agents compare the wall-clock times of their
heartbeats and drop one that seems ``KEEP_ALIVE_ATTEMPTS`` intervals old; two nodes may err either way."""

# Measured on torch 2.13 with two and three local agents: with the defaults (heartbeats of 5 s, 30 s
# for latecomers) survivors of a killed node wait 45 s for their next round, with these 5 s. An agent that
# dies between its joining a round and telling the others where to meet makes them wait for the store.
_RENDEZVOUS = (
    "is_host=0,last_call_timeout=1,read_timeout=20,"
    f"keep_alive_interval={KEEP_ALIVE_S},keep_alive_max_attempt={KEEP_ALIVE_ATTEMPTS}"
)
_WITHOUT_END = 1_000_000


def bounds_of(nnodes: str) -> tuple[int, int]:
    """Fewest and most nodes.

    Raises:
        ConfigError: ``nnodes`` has no valid form.
    """
    try:
        return node_range(nnodes)
    except ValueError as exc:
        raise ConfigError(f"nnodes: {nnodes!r} is not allowed: {exc}") from exc


def torchrun_command(
    script: str,
    args: Sequence[str],
    *,
    nnodes: str = "1",
    nproc_per_node: int = 1,
    max_restarts: int = 3,
    rendezvous: str | None = None,
    run_id: str = "edldist",
    notes: str = "",
    ahead_s: float | None = None,
) -> list[str]:
    """The command that runs ``script`` on ``nproc_per_node`` ranks of this node.

    Every rank is tied to its agent: agents start ranks in sessions of their own, and one that is
    killed leaves them behind otherwise. A rank whose agent is gone can no longer be told anything,
    so it is killed and not asked.

    Args:
        rendezvous: ``host:port`` of the store in which several nodes meet; None for one node.
        run_id: nodes of one run share it.
        notes: file to which a line is appended for every rank as it starts (``child``); empty for none.
        ahead_s: lets agents of several nodes survive jumps of the wall clock (``launch.agent``); None
            for torchrun's own.

    Raises:
        ConfigError: ``nnodes`` has no valid form, or needs a rendezvous and none is given.
    """
    least, most = bounds_of(nnodes)
    agent = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={nproc_per_node}"]
    if most == 1:
        agent += ["--standalone", "--nnodes=1", f"--max-restarts={max_restarts}"]
    elif rendezvous is None:
        raise ConfigError(f"nnodes={nnodes}: several nodes need a rendezvous store, and none was named")
    else:
        if ahead_s is not None:
            agent[2:3] = ["edldist_launch.agent", repr(ahead_s)]
        agent += [
            *(f"--nnodes={least}:{most}", f"--max-restarts={_WITHOUT_END}", "--monitor-interval=0.2"),
            *("--rdzv-backend=c10d", f"--rdzv-endpoint={rendezvous}", f"--rdzv-id={run_id}"),
            f"--rdzv-conf={_RENDEZVOUS}",
        ]
    rank = tied_command([sys.executable, "-u", script], parent=0, signum=signal.SIGKILL, notes=notes)
    return [*agent, "--no-python", *rank, *args]


def prepare_environment(environment: MutableMapping[str, str]) -> None:
    """Settings that an agent needs to survive membership changes, in place.

    By default agents keep the first round's worker store when membership changes, and a node that
    joins in mid-run hangs or kills the job.
    """
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"


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
