"""``edldist student``: one node of a training script's group under torchrun, in the foreground."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from edldist.cpus import quota_binds
from edldist.errors import ConfigError, CoordinatorUnreachableError, EdlDistError
from edldist.observe.health import Health, probed
from edldist.wire.messages import NodeStatus, Scalar
from edldist.wire.query import StatusClient
from edldist_launch.machine.cpu_shares import commands_here, limit_threads, sharers_of
from edldist_launch.machine.rank_count import rank_count
from edldist_launch.machine.room import check_room
from edldist_launch.node.notes import RankNotes
from edldist_launch.node.torchrun import (
    bounds_of,
    default_run_id,
    meeting_host,
    prepare_environment,
    torchrun_command,
)
from edldist_launch.node.watch import AGENT_TRIES, AgentRestarts, NodeWatch, Progress, RankProcess
from edldist_launch.process.exits import EXIT_INTERRUPTED, EXIT_USAGE
from edldist_launch.process.interrupts import Interrupts
from edldist_launch.process.tie import start_ticks, tied_command

__all__ = ["run_student"]

logger = logging.getLogger(__name__)

GRACE_S = 30.0
HOPELESS_GRACE_S = 5.0
LOOK_S = 0.5
STATUS_TIMEOUT_S = 0.3
REJOIN_S = 2.0
ALONE_S = 10.0
"""A rank for which no other waits gets so long to come back once it was written off: starting up on a busy
machine, it may get no processor for longer than the coordinator waits."""
FRUITLESS_RESTARTS = 10
_POLL_S = 0.1
_LOOP, _LONGEST_TURN_S = "supervising", 10.0


def run_student(
    coordinator: str,
    script: str,
    args: Sequence[str],
    *,
    nnodes: str = "1",
    nproc_per_node: int | str = 1,
    max_restarts: int = 3,
    run_id: str | None = None,
    connect_timeout_s: float = 300.0,
    http: str | None = None,
) -> int:
    """Run this node's part of the script to its end.

    The group leads a session of its own: Ctrl-C reaches this process, which asks the group to
    leave (SIGTERM: checkpoint, then go), and kills it at the second Ctrl-C or after 30 s.

    Args:
        run_id: nodes of one run share it; None for that of the command (``default_run_id``).
        connect_timeout_s: how long this node, and each of its ranks, looks for a coordinator.
        http: ``HOST:PORT`` where probes ask for its health, or None for nowhere.

    Returns:
        0, 1 (the script failed), 130, or 128 + the signal that killed the agent.

    Raises:
        ConfigError: the script does not exist, ``nnodes`` is wrong, or here is no room for so many ranks.
        CoordinatorUnreachableError: several nodes are wanted, and no coordinator answers.
    """
    _, most = bounds_of(nnodes)
    if not Path(script).is_file():
        raise ConfigError(f"no such script: {script} (looked from {Path.cwd()})")
    nproc_per_node = rank_count(nproc_per_node, "--nproc-per-node")
    check_room({"--nproc-per-node": nproc_per_node})
    run_id = run_id or default_run_id(script, args, nnodes, os.environ)
    health = Health({_LOOP: _LONGEST_TURN_S})
    with probed(http, health), Interrupts() as interrupts, RankNotes() as notes:

        def stop_waiting() -> bool:
            health.turned(_LOOP)
            health.waits_for(f"no coordinator answers at {coordinator}")
            return interrupts.count > 0

        try:
            advertise = os.environ.get("EDLDIST_ADVERTISE")
            local_host = meeting_host(coordinator, most, advertise, connect_timeout_s, stop_waiting)
            if most > 1:
                _await_coordinator(coordinator, connect_timeout_s, stop_waiting)
        except CoordinatorUnreachableError:
            if interrupts.count:
                return EXIT_INTERRUPTED
            raise
        environment = dict(
            os.environ,
            EDLDIST_COORDINATOR=coordinator,
            EDLDIST_CONNECT_TIMEOUT_S=repr(connect_timeout_s),
            EDLDIST_RANK_NOTES=notes.path,
        )
        prepare_environment(environment, local_host)
        sharers = nproc_per_node + sharers_of("teacher", commands_here())
        if (sharers > 1 or most > 1 or quota_binds()) and (threads := limit_threads(environment, sharers)):
            logger.info(
                "CPU threads: %d for each of %d ranks and teacher workers (set OMP_NUM_THREADS to choose)",
                *(threads, sharers),
            )

        def start() -> subprocess.Popen[bytes] | None:
            if interrupts.count:
                return None
            command = torchrun_command(
                script,
                args,
                nnodes=nnodes,
                nproc_per_node=nproc_per_node,
                max_restarts=max_restarts,
                local_host=local_host,
                coordinator=coordinator,
                run_id=run_id,
                connect_timeout_s=connect_timeout_s,
                notes=notes.path,
            )
            return subprocess.Popen(
                tied_command(command, parent=os.getpid()), env=environment, start_new_session=True
            )

        agent = start()
        if agent is None:
            return EXIT_INTERRUPTED
        watch = NodeWatch(nproc_per_node, max(max_restarts, FRUITLESS_RESTARTS))
        patience_s = ALONE_S if most == nproc_per_node == 1 else 0.0
        node = _Node(agent, coordinator, watch, notes, patience_s, health)
        try:
            if most == 1:
                code = _wait_single(node, watch, max_restarts, start, interrupts)
            else:
                code = _wait_elastic(node, watch, start, interrupts)
        finally:
            node.close()
    if code < 0:
        return EXIT_INTERRUPTED if interrupts.count else 128 - code
    if code == 0 or not interrupts.count:
        return min(code, 1)
    return EXIT_INTERRUPTED


def _wait_single(
    node: _Node,
    watch: NodeWatch,
    max_restarts: int,
    start: Callable[[], subprocess.Popen[bytes] | None],
    interrupts: Interrupts,
) -> int:
    """Look after the only node until it is done.

    Its agent counts all restarts, however far the ranks came in between. So one that has used them up is
    started again, unless that many in a row were fruitless.

    Returns:
        The last agent's exit code.
    """
    while True:
        code = node.wait(interrupts)
        if code in (0, EXIT_USAGE) or interrupts.count or node.gave_up or watch.fruitless >= max_restarts:
            return code
        logger.warning(
            "the agent of this node %s, but its ranks came further since the last time: starting them again",
            "gave up on its ranks" if code > 0 else f"was ended by signal {-code}",
        )
        agent = start()
        if agent is None:
            return EXIT_INTERRUPTED
        node.replace_agent(agent)


def _wait_elastic(
    node: _Node,
    watch: NodeWatch,
    start: Callable[[], subprocess.Popen[bytes] | None],
    interrupts: Interrupts,
) -> int:
    """Look after a node of several until it is done; its agent is started again when it ends by itself.

    Returns:
        The last agent's exit code.
    """
    restarts = AgentRestarts()
    while True:
        code = node.wait(interrupts)
        if interrupts.count or node.gave_up:
            return code
        delay_s = restarts.ended(code, watch.furthest)
        if delay_s is None:
            if restarts.tries == AGENT_TRIES:
                logger.error("the agent of this node ended %d times in a row: giving up", AGENT_TRIES + 1)
            return code
        logger.warning(
            "the agent of this node ended by itself (%s); starting it again in %g s (try %d of %d)",
            f"exit code {code}" if code >= 0 else f"signal {-code}",
            delay_s,
            restarts.tries,
            AGENT_TRIES,
        )
        deadline = time.monotonic() + delay_s
        while time.monotonic() < deadline and not interrupts.count:
            node.rest()
            time.sleep(_POLL_S)
        agent = None if interrupts.count else start()
        if agent is None:
            return EXIT_INTERRUPTED
        node.replace_agent(agent)


def _await_coordinator(coordinator: str, timeout_s: float, stop: Callable[[], bool]) -> None:
    """Ask the coordinator until it answers, or ``stop`` says to ask no longer.

    Raises:
        CoordinatorUnreachableError: it did not answer within ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    with contextlib.closing(StatusClient(coordinator)) as client:
        while not stop():
            try:
                client.query(timeout_s=min(1.0, timeout_s))
                return
            except CoordinatorUnreachableError:
                if time.monotonic() > deadline:
                    raise


class _Node:
    """The agent's process and its ranks. Main thread only.

    Args:
        patience_s: how long a rank that was written off may take to come back.
        health: told of each turn, and of whether the ranks are part of the job.
    """

    def __init__(
        self,
        agent: subprocess.Popen[bytes],
        coordinator: str,
        watch: NodeWatch,
        notes: RankNotes,
        patience_s: float,
        health: Health,
    ) -> None:
        self._agent = agent
        self._watch = watch
        self._notes = notes
        self._client = StatusClient(coordinator)
        self._seen = 0
        self._incarnation = ""
        self._next_look = time.monotonic()
        self._sure_from = 0.0
        self._patience_s = patience_s
        self._health = health
        self.gave_up = False

    def replace_agent(self, agent: subprocess.Popen[bytes]) -> None:
        """Look after another agent; the former one has ended."""
        self._agent = agent

    def rest(self) -> None:
        """Say that there is no agent for a while, and that all is well."""
        self._health.turned(_LOOP)
        self._health.waits_for("its ranks are about to be started again")

    def wait(self, interrupts: Interrupts) -> int:
        """Look after the ranks until the agent ends; its exit code."""
        deadline: float | None = None
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._agent.wait(_POLL_S)
                if code:
                    self._look()  # how far its ranks came decides what follows
                return code
            now = time.monotonic()
            self._health.turned(_LOOP)
            if interrupts.count and deadline is None:
                self._agent.send_signal(signal.SIGTERM)
                deadline = now + GRACE_S
            if deadline is not None and (interrupts.count > 1 or now > deadline):
                os.killpg(self._agent.pid, signal.SIGKILL)
                return self._agent.wait()
            if now >= self._next_look:
                self._next_look = now + LOOK_S
                self._look()
                if self._watch.verdict is not None:
                    return self._give_up(f"a restart would not help, giving up: {self._watch.verdict}")
                if self._watch.hopeless:
                    return self._give_up(
                        f"the script was restarted {self._watch.max_fruitless} times in a row and came no "
                        "further: giving up; see its own errors above"
                    )

    def close(self) -> None:
        if self._agent.poll() is None:
            os.killpg(self._agent.pid, signal.SIGKILL)
            self._agent.wait()
        self._client.close()

    def _give_up(self, reason: str) -> int:
        self.gave_up = True
        self._agent.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._agent.wait(HOPELESS_GRACE_S)  # there is nothing to save
        logger.error(reason)  # the last word: what the agent says when it ends is of no use
        return 1

    def _look(self) -> None:
        self._watch.see_notes(self._notes.read())
        try:
            status = self._client.node(self._watch.processes, self._seen, STATUS_TIMEOUT_S)
        except EdlDistError:
            # The coordinator may be gone for a while; ranks train on without it.
            self._sure_from = time.monotonic() + REJOIN_S
            return
        self._health.waits_for(None if status.ranks else "its ranks are no part of the job (yet)")
        lost = self._read(status)
        if lost:
            self._sure_from = max(self._sure_from, time.monotonic() + self._patience_s)
        members = [rank.process for rank in status.ranks]
        for rank in self._watch.written_off(lost, members, sure=time.monotonic() >= self._sure_from):
            if not self._runs(rank):
                continue
            logger.warning("rank process %d was written off by the coordinator: killing it", rank.pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(rank.pid, signal.SIGKILL)

    def _runs(self, rank: RankProcess) -> bool:
        """Whether a rank still is a process of the agent's, and not another one that was given its id."""
        try:
            parent = psutil.Process(rank.pid).ppid()
        except psutil.Error:
            return False
        return parent == self._agent.pid and start_ticks(rank.pid) == rank.start_ticks

    def _read(self, status: NodeStatus) -> list[str]:
        """Note progress; return the names of the ranks' processes that were lost."""
        first_look = not self._incarnation
        restarted = status.incarnation != self._incarnation
        self._incarnation = status.incarnation
        self._seen = 0 if restarted and not first_look else status.seq
        self._watch.see_progress((rank.process, _progress(rank.stats)) for rank in status.ranks)
        return [] if first_look else status.lost


def _progress(stats: Mapping[str, Scalar]) -> Progress:
    figures = (stats.get(key, 0) for key in ("batches", "epoch", "epoch_samples"))
    return Progress(*(figure if isinstance(figure, int) else 0 for figure in figures))
