"""The ranks of a student node while its agent runs: watched, asked to leave, and killed where they do not."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping

import psutil

from edldist.errors import EdlDistError
from edldist.keys.pair import STUDENT
from edldist.observe.health import Health
from edldist.wire.messages import NodeStatus, Scalar
from edldist.wire.query import StatusClient
from edldist_launch.node.notes import RankNotes
from edldist_launch.node.watch import NodeWatch, Progress, RankProcess
from edldist_launch.process.interrupts import Interrupts
from edldist_launch.process.tie import start_ticks

__all__ = ["LOOK_S", "LOOP", "POLL_S", "STATUS_TIMEOUT_S", "NodeRanks", "progress_of"]

logger = logging.getLogger(__name__)

HOPELESS_GRACE_S = 5.0
"""For ranks that have nothing to save, or cannot: some of them never heard of it."""
LOOK_S = 0.5
STATUS_TIMEOUT_S = 0.3
REJOIN_S = 2.0
POLL_S = 0.1
LOOP = "supervising"
"""What a probe calls the loop that looks after them."""


class NodeRanks:
    """The agent's process and its ranks. Main thread only.

    Args:
        patience_s: how long a rank that was written off may take to come back.
        grace_s: how long ranks that are asked to leave may take.
        health: told of each turn, and of whether the ranks are part of the job.
    """

    def __init__(
        self,
        agent: subprocess.Popen[bytes],
        coordinator: str,
        watch: NodeWatch,
        notes: RankNotes,
        patience_s: float,
        grace_s: float,
        health: Health,
    ) -> None:
        self._agent = agent
        self._watch = watch
        self._notes = notes
        self._client = StatusClient(coordinator, role=STUDENT)
        self._seen = 0
        self._incarnation = ""
        self._next_look = time.monotonic()
        self._sure_from = 0.0
        self._patience_s = patience_s
        self._grace_s = grace_s
        self._health = health
        self.gave_up = False
        self.killed = False
        """Whether ranks that were asked to leave did not, and were killed."""

    def replace_agent(self, agent: subprocess.Popen[bytes]) -> None:
        """Look after another agent; the former one has ended."""
        self._agent = agent

    def rest(self) -> None:
        """Say that there is no agent for a while, and that all is well."""
        self._health.turned(LOOP)
        self._health.waits_for("its ranks are about to be started again")

    def wait(self, interrupts: Interrupts) -> int:
        """Look after the ranks until the agent ends; its exit code."""
        deadline: float | None = None
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._agent.wait(POLL_S)
                self._watch.see_notes(self._notes.read())
                if code:
                    self._look()  # how far its ranks came decides what follows
                return code
            now = time.monotonic()
            self._health.turned(LOOP)
            if interrupts.asked and deadline is None:
                self._agent.send_signal(signal.SIGTERM)
                deadline = now + self._grace()
            if deadline is not None and (interrupts.insisted or now > deadline):
                self.killed = True
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

    def _grace(self) -> float:
        """How long the ranks may take to leave, now that they are asked to.

        Where some save first and others have not come so far yet, these end at once, and those wait for them
        in a collective: there will be no checkpoint.
        """
        self._watch.see_notes(self._notes.read())
        some = 0 < self._watch.heeding < len(self._watch.processes)
        return min(self._grace_s, HOPELESS_GRACE_S) if some else self._grace_s

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
        self._watch.see_progress((rank.process, progress_of(rank.stats)) for rank in status.ranks)
        return [] if first_look else status.lost


def progress_of(stats: Mapping[str, Scalar]) -> Progress:
    """How far a rank has come, by what it tells of itself."""
    figures = (stats.get(key, 0) for key in ("batches", "epoch", "epoch_samples"))
    return Progress(*(figure if isinstance(figure, int) else 0 for figure in figures))
