"""The command line and the environment of a student's process group."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

import psutil

from edldist.address import local_host_towards, parse_address, parse_advertised
from edldist.cpus import usable_cpus
from edldist.errors import ConfigError
from edldist.nodes import node_range
from edldist_launch.agent import ALONE
from edldist_launch.child import tied_command

__all__ = [
    "MAX_SKEW_S",
    "bounds_of",
    "default_run_id",
    "limit_threads",
    "meeting_host",
    "prepare_environment",
    "torchrun_command",
]

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
LOOPBACK = "127.0.0.1"


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
    local_host: str = LOOPBACK,
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
        local_host: where the ranks of all nodes reach this node, should it hold rank 0.
        rendezvous: ``host:port`` of the store in which several nodes meet; None for one node.
        run_id: nodes of one run share it.
        notes: file to which a line is appended for every rank as it starts (``child``); empty for none.
        ahead_s: lets agents of several nodes survive jumps of the wall clock (``launch.agent``).

    Raises:
        ConfigError: ``nnodes`` has no valid form, or needs a rendezvous and none is given.
    """
    least, most = bounds_of(nnodes)
    kept = ALONE if ahead_s is None else repr(ahead_s)
    agent = [sys.executable, "-m", "edldist_launch.agent", kept, f"--nproc-per-node={nproc_per_node}"]
    agent.append(f"--local-addr={local_host}")
    if most == 1:
        agent += ["--standalone", "--nnodes=1", f"--max-restarts={max_restarts}"]
    elif rendezvous is None:
        raise ConfigError(f"nnodes={nnodes}: several nodes need a rendezvous store, and none was named")
    else:
        agent += [
            *(f"--nnodes={least}:{most}", f"--max-restarts={_WITHOUT_END}", "--monitor-interval=0.2"),
            *("--rdzv-backend=c10d", f"--rdzv-endpoint={rendezvous}", f"--rdzv-id={run_id}"),
            f"--rdzv-conf={_RENDEZVOUS}",
        ]
    rank = tied_command([sys.executable, "-u", script], parent=0, signum=signal.SIGKILL, notes=notes)
    return [*agent, "--no-python", *rank, *args]


def default_run_id(script: str, args: Sequence[str], nnodes: str, environ: Mapping[str, str]) -> str:
    """The run of those nodes that start the very same command for the same job.

    Two jobs at one coordinator must not meet, and the nodes of one job must, without a word to each other:
    what tells jobs apart is the script and its arguments, how many nodes it wants, and the job and the
    output folder that they belong to.
    """
    told = [environ.get("EDLDIST_JOB", ""), environ.get("EDLDIST_OUTPUT", "")]
    digest = hashlib.sha256(json.dumps([script, *args, nnodes, *told]).encode()).hexdigest()
    return f"{environ.get('EDLDIST_JOB') or Path(script).stem}-{digest[:12]}"


def meeting_host(coordinator: str, most_nodes: int, advertise: str | None) -> str:
    """Where the ranks of all nodes reach this node: an address, since its own name may not resolve.

    Args:
        coordinator: ``tcp://host:port``; the address is that of this host on the way there.
        most_nodes: one node meets nobody else, so its ranks stay on the loopback interface.
        advertise: ``EDLDIST_ADVERTISE`` (a port in it is none of this matter), or None.

    Raises:
        ConfigError: there is no way to the coordinator's host.
    """
    if most_nodes == 1:
        return LOOPBACK
    if advertise:
        return parse_advertised(advertise).host
    return local_host_towards(*parse_address(coordinator, "coordinator"))


def prepare_environment(environment: MutableMapping[str, str], local_host: str = LOOPBACK) -> None:
    """Settings that an agent and its ranks need, in place; what the user chose stays.

    By default agents keep the first round's worker store when membership changes, and a node that
    joins in mid-run hangs or kills the job. And gloo listens where the host's own name points to, which need
    not exist, or be reached by anyone: it gets the interface that has ``local_host``.
    """
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    if (interface := _interface_of(local_host)) is not None:
        environment.setdefault("GLOO_SOCKET_IFNAME", interface)


def _interface_of(address: str) -> str | None:
    """The network interface that has an address, or None: it is a name, or some other host's."""
    for interface, addresses in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in addresses):
            return interface
    return None


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
    threads = max(1, usable_cpus() // max(1, sharers))
    environment["OMP_NUM_THREADS"] = str(threads)
    return threads
