"""``edldist student``: one node of a training script's group, under torchrun or live, in the foreground."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edldist.cpus import quota_binds
from edldist.errors import ConfigError, CoordinatorUnreachableError
from edldist.grace import STUDENT_S
from edldist.keys.open_link import check_reach
from edldist.keys.pair import STUDENT
from edldist.labeller import script_file
from edldist.live.terms import LiveTerms
from edldist.observe.health import Health, probed
from edldist.wire.query import StatusClient
from edldist_launch.machine.cpu_shares import commands_here, limit_threads, sharers_of
from edldist_launch.machine.rank_count import rank_count
from edldist_launch.machine.room import check_room
from edldist_launch.node.farewell import tell_end
from edldist_launch.node.live import LiveRanks
from edldist_launch.node.notes import RankNotes
from edldist_launch.node.ranks import LOOP, POLL_S, NodeRanks
from edldist_launch.node.torchrun import (
    bounds_of,
    default_run_id,
    meeting_host,
    prepare_environment,
    torchrun_command,
)
from edldist_launch.node.watch import AGENT_TRIES, AgentRestarts, NodeWatch
from edldist_launch.process.exits import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_STOPPED, EXIT_USAGE
from edldist_launch.process.interrupts import Interrupts
from edldist_launch.process.tie import tied_command

__all__ = ["run_student"]

logger = logging.getLogger(__name__)

ALONE_S = 10.0
"""A rank for which no other waits gets so long to come back once it was written off: starting up on a busy
machine, it may get no processor for longer than the coordinator waits."""
FRUITLESS_RESTARTS = 10
_LONGEST_TURN_S = 10.0


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
    grace_s: float = STUDENT_S,
    http: str | None = None,
    extend: bool = False,
    weight: int | None = None,
    priority: int | None = None,
    resize: str = "restart",
) -> int:
    """Run this node's part of the script to its end.

    The group leads a session of its own: Ctrl-C reaches this process, which asks the group to
    leave (SIGTERM: checkpoint, then go), and kills it when somebody insists, or after ``grace_s``.

    Args:
        run_id: nodes of one run share it; None for that of the command (``default_run_id``).
        connect_timeout_s: how long this node, and each of its ranks, looks for a coordinator.
        grace_s: how long ranks that are asked to leave may take.
        http: ``HOST:PORT`` where probes ask for its health, or None for nowhere.
        extend: whether the script goes on from a checkpoint though another teacher labelled for it.
        weight, priority: of the job among those that share workers; None for what the environment says.
        resize: ``restart``: torchrun starts the ranks again when their group changes; ``live``: they go on in
            process (``edldist.LiveGroup``).

    Returns:
        0, 1 (the script failed), 143 or 130 (asked to stop, or even insisted), or 128 + the signal that
        killed the agent.

    Raises:
        ConfigError: the script does not exist, ``nnodes`` is wrong, here is no room for so many ranks, or the
            coordinator is on another machine and there are no keys.
        CoordinatorUnreachableError: several nodes are wanted, and no coordinator answers.
    """
    least, most = bounds_of(nnodes)
    script = script_file(script)
    if not Path(script).is_file():
        raise ConfigError(f"no such script: {script} (looked from {Path.cwd()})")
    check_reach(coordinator)
    nproc_per_node = rank_count(nproc_per_node, "--nproc-per-node")
    check_room({"--nproc-per-node": nproc_per_node})
    run_id = run_id or default_run_id(script, args, nnodes, os.environ)
    health = Health({LOOP: _LONGEST_TURN_S})
    with probed(http, health), Interrupts() as interrupts, RankNotes() as notes:

        def stop_waiting() -> bool:
            health.turned(LOOP)
            health.waits_for(f"no coordinator answers at {coordinator}")
            return interrupts.asked

        try:
            advertise = os.environ.get("EDLDIST_ADVERTISE")
            local_host = meeting_host(coordinator, most, advertise, connect_timeout_s, stop_waiting)
            if most > 1 or resize == "live":
                _await_coordinator(coordinator, connect_timeout_s, stop_waiting)
        except CoordinatorUnreachableError:
            if interrupts.asked:
                return EXIT_STOPPED
            raise
        environment = dict(
            os.environ,
            EDLDIST_COORDINATOR=coordinator,
            EDLDIST_CONNECT_TIMEOUT_S=repr(connect_timeout_s),
            EDLDIST_RANK_NOTES=notes.path,
            EDLDIST_EXTEND=str(int(extend)),
            **_share(weight, priority),
        )
        prepare_environment(environment, local_host)
        sharers = nproc_per_node + sharers_of("teacher", commands_here())
        if (sharers > 1 or most > 1 or quota_binds()) and (threads := limit_threads(environment, sharers)):
            logger.info(
                "CPU threads: %d for each of %d ranks and teacher workers (set OMP_NUM_THREADS to choose)",
                *(threads, sharers),
            )

        if resize == "live":
            terms = LiveTerms(
                coordinator=coordinator,
                run=run_id,
                job=shlex.join([Path(script).name, *args]),
                least=least * nproc_per_node,
                most=most * nproc_per_node,
                host=None if most == 1 else local_host,
                connect_timeout_s=connect_timeout_s,
            )
            live = LiveRanks(
                *(terms, environment, script, args, nproc_per_node, notes),
                *(max(max_restarts, FRUITLESS_RESTARTS), grace_s, health),
            )
            with contextlib.closing(live):
                code = live.run(interrupts)
            tell_end(coordinator, code, interrupts, health)
            return code

        def start() -> subprocess.Popen[bytes] | None:
            if interrupts.asked:
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
                grace_s=grace_s,
            )
            return subprocess.Popen(
                tied_command(command, parent=os.getpid()), env=environment, start_new_session=True
            )

        agent = start()
        if agent is None:
            logger.warning("asked to stop before any rank was started")
            return EXIT_STOPPED
        watch = NodeWatch(nproc_per_node, max(max_restarts, FRUITLESS_RESTARTS))
        patience_s = ALONE_S if most == nproc_per_node == 1 else 0.0
        node = NodeRanks(agent, coordinator, watch, notes, patience_s, grace_s, health)
        try:
            if most == 1:
                code = _wait_single(node, watch, max_restarts, start, interrupts)
            else:
                code = _wait_elastic(node, watch, start, interrupts)
            code = _end(code, node, watch, interrupts)
            tell_end(coordinator, code, interrupts, health)
        finally:
            node.close()
    return code


def _share(weight: int | None, priority: int | None) -> dict[str, str]:
    """The variables of what was given."""
    given = {"EDLDIST_WEIGHT": weight, "EDLDIST_PRIORITY": priority}
    return {name: str(number) for name, number in given.items() if number is not None}


def _end(code: int, node: NodeRanks, watch: NodeWatch, interrupts: Interrupts) -> int:
    """What the last agent's end amounts to; says what became of the ranks that were asked to stop.

    Returns:
        This node's exit code.
    """
    if node.gave_up:
        return EXIT_FAILED
    told_alone = code == 0 and watch.stopped  # the ranks, and not this process
    if not (interrupts.asked or told_alone):
        return 128 - code if code < 0 else min(code, EXIT_FAILED)
    if code == 0 and not told_alone:
        return 0  # they had just finished
    if not watch.heeding:
        logger.warning(
            "asked to stop before the script called edldist.should_stop(): nothing was saved for it"
        )
    elif node.killed:
        logger.warning("the ranks were killed before they had left: nothing was saved for this stop")
    return EXIT_INTERRUPTED if interrupts.insisted else EXIT_STOPPED


def _wait_single(
    node: NodeRanks,
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
        if code in (0, EXIT_USAGE) or node.gave_up or watch.fruitless >= max_restarts:
            return code
        if interrupts.come_as(code):
            return code
        logger.warning(
            "the agent of this node %s, but its ranks came further since the last time: starting them again",
            "gave up on its ranks" if code > 0 else f"was ended by signal {-code}",
        )
        agent = start()
        if agent is None:
            return EXIT_STOPPED
        node.replace_agent(agent)


def _wait_elastic(
    node: NodeRanks,
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
        if node.gave_up or interrupts.come_as(code):
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
        while time.monotonic() < deadline and not interrupts.asked:
            node.rest()
            time.sleep(POLL_S)
        agent = start()
        if agent is None:
            return EXIT_STOPPED
        node.replace_agent(agent)


def _await_coordinator(coordinator: str, timeout_s: float, stop: Callable[[], bool]) -> None:
    """Ask the coordinator until it answers, or ``stop`` says to ask no longer.

    Raises:
        CoordinatorUnreachableError: it did not answer within ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    with contextlib.closing(StatusClient(coordinator, role=STUDENT)) as client:
        while not stop():
            try:
                client.query(timeout_s=min(1.0, timeout_s))
                return
            except CoordinatorUnreachableError:
                if time.monotonic() > deadline:
                    raise
