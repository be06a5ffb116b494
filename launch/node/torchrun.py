"""The command line and the environment of a student's process group."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path

import psutil

from edldist.address import local_host_towards, parse_advertised
from edldist.address_file import find_coordinator
from edldist.bounds import MOST, node_range
from edldist.errors import ConfigError
from edldist.grace import STUDENT_S
from edldist.signals import ASKING
from edldist_launch.node.agent import BACKEND, AgentOptions
from edldist_launch.process.tie import tied_command

__all__ = [
    "bounds_of",
    "default_run_id",
    "meeting_host",
    "prepare_environment",
    "torchrun_command",
]

LOOPBACK = "127.0.0.1"
AGENT_LATER_S = 5


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
    coordinator: str | None = None,
    run_id: str = "edldist",
    connect_timeout_s: float = 300.0,
    notes: str = "",
    grace_s: float = STUDENT_S,
) -> list[str]:
    """The command that runs ``script`` on ``nproc_per_node`` ranks of this node.

    Every rank is tied to its agent: agents start ranks in sessions of their own, and one that is
    killed leaves them behind otherwise. A rank whose agent is gone can no longer be told anything,
    so it is killed and not asked. What ranks write goes to the agent's own output; the folder of logs that
    torchrun makes, and never removes, holds nothing then, so it makes none.

    Args:
        local_host: where the ranks of all nodes reach this node, should it hold rank 0.
        coordinator: ``tcp://host:port`` or ``file:PATH`` where several nodes meet; unused for one node.
        run_id: nodes of one run share it.
        connect_timeout_s: how long a node waits for a coordinator that does not answer.
        notes: file to which a line is appended for every rank as it starts (``child``); empty for none.
        grace_s: how long ranks that are asked to leave may take, before whoever started the agent kills all
            of them; the agent itself waits a little longer.

    Raises:
        ConfigError: ``nnodes`` has no valid form, or needs a coordinator and none is given.
    """
    least, most = bounds_of(nnodes)
    if most > 1 and coordinator is None:
        raise ConfigError(f"nnodes={nnodes}: several nodes meet at a coordinator, and none was named")
    options = AgentOptions(
        ranks=nproc_per_node,
        coordinator=coordinator if most > 1 else None,
        job=shlex.join([Path(script).name, *args]),
        connect_timeout_s=connect_timeout_s,
    )
    restarts = max_restarts if most == 1 else MOST
    agent = [
        *(sys.executable, str(Path(__file__).with_name("agent.py")), options.encode()),
        *(f"--nnodes={least}:{most}", f"--nproc-per-node={nproc_per_node}", f"--max-restarts={restarts}"),
        *(f"--rdzv-backend={BACKEND}", f"--rdzv-endpoint={coordinator or ''}", f"--rdzv-id={run_id}"),
        *(f"--local-addr={local_host}", "--monitor-interval=0.1", f"--log-dir={os.devnull}"),
        *(f"--signals-to-handle={','.join(number.name for number in (*ASKING, signal.SIGQUIT))}",),
        f"--shutdown-timeout={math.ceil(grace_s) + AGENT_LATER_S}",
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


def meeting_host(
    coordinator: str,
    most_nodes: int,
    advertise: str | None,
    timeout_s: float = 0.0,
    stop: Callable[[], bool] = lambda: False,
) -> str:
    """Where the ranks of all nodes reach this node: an address, since its own name may not resolve.

    Args:
        coordinator: its address, or the file that says it; this host's address is that on the way there.
        most_nodes: one node meets nobody else, so its ranks stay on the loopback interface.
        advertise: ``EDLDIST_ADVERTISE`` (a port in it is none of this matter), or None.
        timeout_s: how long to wait for the file.
        stop: says to wait no longer.

    Raises:
        ConfigError: there is no way to the coordinator's host.
        CoordinatorUnreachableError: no coordinator wrote the file in time.
    """
    if most_nodes == 1:
        return LOOPBACK
    if advertise:
        return parse_advertised(advertise).host
    return local_host_towards(*find_coordinator(coordinator, "coordinator", timeout_s, stop))


def prepare_environment(environment: MutableMapping[str, str], local_host: str = LOOPBACK) -> None:
    """Settings that an agent and its ranks need, in place; what the user chose stays.

    gloo listens where the host's own name points to, which need not exist, or be reached by anyone: it gets
    the interface that has ``local_host``.
    """
    if (interface := _interface_of(local_host)) is not None:
        environment.setdefault("GLOO_SOCKET_IFNAME", interface)


def _interface_of(address: str) -> str | None:
    """The network interface that has an address, or None: it is a name, or some other host's."""
    for interface, addresses in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in addresses):
            return interface
    return None
