"""The ranks of a node whose group changes in process: started here, one by one, and kept in number.

torchrun's agent ends all ranks when one fails. So these have no agent: each meets the others by itself
(``edldist.live``), and this starts them, tells the coordinator of one that died, and starts another in its
place, which prepares itself while the others train::

    started --exit 0--> done            --asked to stop--> left (its work is not done)
       ^       |
       |       +--an error, or killed--> gone: the coordinator is told --after a while--> started
       +-----------------------------------------------------------------------------------+

A rank that says that a restart would not help, or that was started ``max_fruitless`` times in a row without
coming further, ends the node with 1. Ranks that stand still when all others are done are killed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edldist.errors import EdlDistError
from edldist.keys.pair import STUDENT
from edldist.live.terms import TERMS_VARIABLE, LiveTerms
from edldist.meeting.attendance import Attendance
from edldist.observe.health import Health
from edldist.wire.messages import GroupNode, NodeReport
from edldist.wire.query import StatusClient
from edldist_launch.node.notes import RankNotes
from edldist_launch.node.ranks import LOOK_S, LOOP, POLL_S, STATUS_TIMEOUT_S, progress_of
from edldist_launch.node.watch import Progress
from edldist_launch.process.exits import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_STOPPED, was_asked
from edldist_launch.process.interrupts import Interrupts
from edldist_launch.process.tie import tied_command

__all__ = ["LiveRanks"]

logger = logging.getLogger(__name__)

_TOLD_S = 2.0
_LAST_S = 10.0
"""A rank may take so long to end when others of its node have done their work."""
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.5, 30.0


@dataclass
class _Rank:
    """One place on this node, and the process that has it now."""

    place: int
    process: subprocess.Popen[bytes] | None = None
    name: str = ""
    code: int | None = None  # of a process whose end is final
    fruitless: int = 0
    furthest: Progress = field(default_factory=lambda: Progress(0, -1, -1))
    due_at: float = 0.0


class LiveRanks:
    """The processes of one node's ranks. Main thread only.

    Args:
        terms: of the run; ``environment``: of the ranks, without what tells them apart.
        script, args: what they run.
        ranks: how many.
        notes: what they tell this process.
        max_fruitless: starts in a row without progress, of one place.
        grace_s: how long they may take to leave when they are asked to.
        health: told of each turn.
    """

    def __init__(
        self,
        terms: LiveTerms,
        environment: Mapping[str, str],
        script: str,
        args: Sequence[str],
        ranks: int,
        notes: RankNotes,
        max_fruitless: int,
        grace_s: float,
        health: Health,
    ) -> None:
        self._terms = terms
        self._environment = dict(environment, **{TERMS_VARIABLE: terms.encode()})
        self._environment["LOCAL_WORLD_SIZE"] = str(ranks)
        self._command = tied_command(
            [sys.executable, "-u", script, *args], os.getpid(), signal.SIGKILL, notes.path
        )
        self._ranks = [_Rank(place) for place in range(ranks)]
        self._notes = notes
        self._max_fruitless = max_fruitless
        self._grace_s = grace_s
        self._health = health
        self._client = StatusClient(terms.coordinator, role=STUDENT)
        self._next_look = 0.0

    def run(self, interrupts: Interrupts) -> int:
        """Look after the ranks until all have ended.

        Returns:
            0 done, 1 failed for good, 143 asked to stop before that, or 130 where somebody insisted.
        """
        asked_at: float | None = None
        done_at: float | None = None
        while True:
            now = time.monotonic()
            self._health.turned(LOOP)
            if interrupts.asked and asked_at is None:
                asked_at = now
                self._signal(signal.SIGTERM)
            for rank in self._ranks:
                self._attend(rank, now, asked_at is not None)
            if verdict := self._verdict():
                return self._give_up(f"a restart would not help, giving up: {verdict}")
            if any(rank.fruitless > self._max_fruitless for rank in self._ranks):
                return self._give_up(
                    f"a rank was started {self._max_fruitless + 1} times in a row and came no further: "
                    "giving up; see its own errors above"
                )
            if all(rank.code is not None for rank in self._ranks):
                return self._code(interrupts)
            done = any(rank.code == 0 for rank in self._ranks)
            done_at = (done_at or now) if done else None
            insisted = interrupts.insisted or (asked_at is not None and now > asked_at + self._grace_s)
            if insisted or (done_at is not None and now > done_at + _LAST_S):
                self._end_others(EXIT_STOPPED if insisted else 0)
            if now >= self._next_look:
                self._next_look = now + LOOK_S
                self._look()
            time.sleep(POLL_S / 2)

    def close(self) -> None:
        """Kill what is left, and hang up."""
        self._signal(signal.SIGKILL)
        for rank in self._ranks:
            if rank.process is not None:
                rank.process.wait()
        self._client.close()

    # --- one rank -----------------------------------------------------------------------------------

    def _attend(self, rank: _Rank, now: float, leaving: bool) -> None:
        if rank.code is not None:
            return
        if rank.process is None:
            if leaving:
                rank.code = EXIT_STOPPED
            elif now >= rank.due_at:
                self._start(rank)
            return
        code = rank.process.poll()
        if code is None:
            return
        rank.process = None
        self._read_notes()
        if code == 0 or (leaving and was_asked(code)):
            stopped = code != 0 or rank.name in self._stopped()
            rank.code = EXIT_STOPPED if stopped else 0
            return
        self._tell_gone(rank)
        rank.fruitless += 1
        delay_s = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2.0 ** (rank.fruitless - 1))
        rank.due_at = now + delay_s
        logger.warning(
            "rank process in place %d of this node ended (%s): starting another in %g s",
            *(rank.place, f"exit code {code}" if code > 0 else f"signal {-code}", delay_s),
        )

    def _start(self, rank: _Rank) -> None:
        self._read_notes()
        environment = dict(self._environment, LOCAL_RANK=str(rank.place))
        rank.process = subprocess.Popen(self._command, env=environment, start_new_session=True)
        rank.name = ""

    def _tell_gone(self, rank: _Rank) -> None:
        """Let the others know at once: from its connection alone the coordinator is sure a second later."""
        if not rank.name:
            return
        report = NodeReport(
            run=self._terms.run,
            job=self._terms.job,
            node=GroupNode(process=rank.name, host="", port=0, ranks=1),
            least=self._terms.least,
            most=self._terms.most,
            state="left",
            seq=1 << 53,
            live=True,
        )
        attendance = Attendance(self._terms.coordinator, report)
        attendance.start()
        try:
            if attendance.wait(lambda view: True, _TOLD_S) is None:
                logger.warning("the coordinator did not hear that rank process %s is gone", rank.name[:8])
        except EdlDistError as exc:
            logger.warning(
                "the coordinator did not hear that rank process %s is gone: %s", rank.name[:8], exc
            )
        finally:
            attendance.close()

    # --- all of them --------------------------------------------------------------------------------

    def _read_notes(self) -> list[list[str]]:
        """Learn the names of processes that were started; all notes by words."""
        lines = [line.split(maxsplit=2) for line in self._notes.read().splitlines() if line.strip()]
        for kind, *words in lines:
            if kind == "start" and len(words) == 2:
                pid = int(words[1].partition(" ")[0])
                for rank in self._ranks:
                    if rank.process is not None and rank.process.pid == pid:
                        rank.name = words[0]
        return lines

    def _verdict(self) -> str:
        """Why a rank says that it is of no use to start it again; empty where none does."""
        names = {rank.name for rank in self._ranks}
        for kind, *words in self._read_notes():
            if kind == "end" and len(words) == 2 and words[0] in names:
                return words[1].strip()
        return ""

    def _stopped(self) -> set[str]:
        """Processes that ended because they were asked to, with their work not done."""
        return {words[0] for kind, *words in self._read_notes() if kind == "stopped" and words}

    def _look(self) -> None:
        """Which ranks have come further, as the coordinator knows it."""
        names = [rank.name for rank in self._ranks if rank.name]
        try:
            status = self._client.node(names, 0, STATUS_TIMEOUT_S)
        except EdlDistError:
            return
        self._health.waits_for(None if status.ranks else "its ranks are no part of the job (yet)")
        for told in status.ranks:
            here, there = progress_of(told.stats), next(r for r in self._ranks if r.name == told.process)
            if here.batches > 0 and (here.epoch, here.samples) > there.furthest[1:]:
                there.furthest, there.fruitless = here, 0

    def _signal(self, signum: int) -> None:
        for rank in self._ranks:
            if rank.process is not None and rank.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(rank.process.pid, signum)

    def _end_others(self, code: int) -> None:
        """Kill the ranks that do not end by themselves."""
        self._signal(signal.SIGKILL)
        for rank in self._ranks:
            if rank.process is not None:
                rank.process.wait()
                rank.process = None
            if rank.code is None:
                rank.code = code

    def _give_up(self, reason: str) -> int:
        self._end_others(EXIT_FAILED)
        logger.error(reason)
        return EXIT_FAILED

    def _code(self, interrupts: Interrupts) -> int:
        if any(rank.code == 0 for rank in self._ranks):
            return 0  # they had just finished, whoever was asked to stop
        return EXIT_INTERRUPTED if interrupts.insisted else EXIT_STOPPED
