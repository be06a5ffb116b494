"""Child processes: when to start them again (pure), how to start, watch and end them (thin).

Every child leads a session of its own, so that a terminal's Ctrl-C reaches only the launcher,
which then ends them in order; and every child is tied to the launcher's life, so that a killed
launcher leaves nothing behind. A ``Child`` belongs to the main thread: the tie holds to the
*thread* that started it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edldist.clock import Clock
from edldist_launch.child import tied_command
from edldist_launch.output import LogPipe

__all__ = ["Change", "Child", "Fleet", "RestartPolicy", "Verdict", "describe_exit", "end_children"]

logger = logging.getLogger(__name__)

BACKOFF_MIN_S = 0.5
BACKOFF_MAX_S = 30.0
HEALTHY_S = 60.0
HURRY_S = 3.0
EXIT_UNUSABLE = 2

Verdict = Literal["restart", "stopped", "hopeless"]


class RestartPolicy:
    """Decides about one child that ended, from its exit code and the time. Pure.

    A crash is answered by a restart after 0.5 s, doubled with each crash up to 30 s, and again
    0.5 s after 60 s of health. Exit 0 means that it was asked to leave. Exit 2 of a child that
    was never ready means that it cannot work at all (wrong options, a model that does not load):
    restarting would only repeat it. So does a crash, by a signal too, that comes before it was ready in each
    of the first ``unready_starts`` starts.

    Args:
        keep: start it again after exit 0 too.
        final: exit codes that are an answer of its own, never worth a restart.
        unready_starts: how many starts a child has to be ready for the first time; None for any number.
    """

    def __init__(
        self, keep: bool = False, final: Collection[int] = (), unready_starts: int | None = None
    ) -> None:
        self._keep = keep
        self._final = frozenset(final)
        self._unready_starts = unready_starts
        self._starts = 0
        self._delay_s = BACKOFF_MIN_S
        self._started_at = 0.0
        self._ever_ready = False
        self.restart_at: float | None = None

    def started(self, now: float) -> None:
        """The child runs from now on."""
        self._started_at = now
        self._starts += 1
        self.restart_at = None

    def ready(self) -> None:
        """The child did its work at least once (a teacher worker joined)."""
        self._ever_ready = True

    def exited(self, code: int, now: float) -> Verdict:
        """The child ended; with ``restart``, ``restart_at`` says when to start it again."""
        if code == 0 and not self._keep:
            return "stopped"
        if code in self._final or (code == EXIT_UNUSABLE and not self._ever_ready):
            return "hopeless"
        if not self._ever_ready and self._starts == self._unready_starts:
            return "hopeless"
        if now - self._started_at >= HEALTHY_S:
            self._delay_s = BACKOFF_MIN_S
        self.restart_at = now + self._delay_s
        self._delay_s = min(BACKOFF_MAX_S, 2 * self._delay_s)
        return "restart"


@dataclass
class Child:
    """One process (and the session it leads) whose output goes to a log file.

    Attributes:
        id: what it is called in logs and events.
        command: what to run; it is tied to this process's life.
        environment: its whole environment.
        log_path: appended to.
    """

    id: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log_path: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _log: LogPipe | None = field(default=None, init=False, repr=False)
    log_start: int = field(default=0, init=False)

    def start(self) -> None:
        """Start the process. A log that cannot be written is no reason not to.

        Raises:
            OSError: the interpreter cannot be started.
        """
        head = f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {self.id}: {' '.join(self.command)}\n"
        self.log_start = len(head.encode(errors="replace"))
        with contextlib.suppress(OSError):
            self.log_start += self.log_path.stat().st_size
        log = LogPipe(self.log_path)
        try:
            os.write(log.write_end, head.encode(errors="replace"))
            self._process = subprocess.Popen(
                tied_command(list(self.command), parent=os.getpid()),
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log.write_end,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except BaseException:
            log.finish()
            raise
        log.started()
        self._log = log

    @property
    def pid(self) -> int:
        """Process id; also that of its session and group."""
        if self._process is None:
            raise RuntimeError(f"{self.id} was not started")
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code (negative: the signal that ended it), or None while it runs.

        Whatever an ended child leaves in its group is killed before the child is reaped: until
        then nobody else can be given its process id. With the exit code, all of its output is in the log.
        """
        process = self._process
        if process is None or process.returncode is not None:
            return process.returncode if process else None
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if self._log is not None:
                self._log.look_after()
            return None
        self._end()
        return process.returncode

    @property
    def running(self) -> bool:
        return self._process is not None and self.poll() is None

    def signal(self, signum: int) -> None:
        """Signal the process alone, if it runs: it decides what its own children get."""
        if self.running:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        """End the process and everything in its group, and wait for it."""
        if self.running:
            self._end()

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        if self._log is not None:
            self._log.finish()
            self._log = None

    def read_log(self, start: int) -> bytes:
        """What this start of the child wrote, from byte ``start`` of the log; empty where there is no log."""
        with contextlib.suppress(OSError), self.log_path.open("rb") as log:
            log.seek(start)
            return log.read()
        return b""

    def output(self, lines: int = 40) -> str:
        """The last lines that this start of the child wrote, without torchrun's own report."""
        written = self.read_log(self.log_start).decode(errors="replace").splitlines()
        return "\n".join(_without_agent_report(written)[-lines:])


def _without_agent_report(lines: list[str]) -> list[str]:
    """Cut the agent's report (some 30 lines) that follows a failed script's own traceback."""
    for number in range(len(lines) - 1, -1, -1):
        if "torch/distributed/elastic" in lines[number] and "failed (exitcode" in lines[number]:
            return lines[:number] or lines
    return lines


def describe_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


def end_children(
    children: Iterable[Child],
    grace_s: float,
    clock: Clock,
    wait: Callable[[float], None],
    hurry: Callable[[], bool] = lambda: False,
) -> None:
    """Ask children to leave with SIGTERM, wait for them, and kill the groups of those that stay.

    Args:
        children: those to end; ones that have ended are waited for and lose what is left of their group.
        grace_s: how long to wait.
        clock: tells the time.
        wait: passes some seconds.
        hurry: true to stop waiting: children that have children of their own are told so by SIGINT, and all
            are killed ``HURRY_S`` later.
    """
    children = list(children)
    for child in children:
        child.signal(signal.SIGTERM)
    deadline = clock.monotonic() + grace_s
    while any(child.running for child in children) and clock.monotonic() < deadline and not hurry():
        wait(0.05)
    if hurry():
        _insist(children, clock, wait)
    for child in children:
        if child.running:
            logger.warning("%s did not leave within %.0f s of SIGTERM: killed", child.id, grace_s)
        child.kill()


def _insist(children: Sequence[Child], clock: Clock, wait: Callable[[float], None]) -> None:
    """Have a student's node kill its ranks, which are no children of ours, before it is killed itself."""
    deadline = clock.monotonic() + HURRY_S
    again = 0.0
    while any(child.running for child in children) and clock.monotonic() < deadline:
        if clock.monotonic() >= again:
            for child in children:
                child.signal(signal.SIGINT)
            again = clock.monotonic() + HURRY_S / 6
        wait(0.05)


@dataclass(frozen=True)
class Change:
    """Something that happened to a supervised child.

    Attributes:
        name: of its slot, the same for every start.
        code: with which it ended.
        retry_s: time until it is started again.
        starts: how often it was started so far.
    """

    event: Literal["started", "restarted", "crashed", "stopped", "hopeless"]
    child: Child
    name: str
    code: int = 0
    retry_s: float = 0.0
    starts: int = 1


class Fleet:
    """Children of one kind that are restarted when they crash.

    Owned by the main thread; ``tick`` is called a few times a second. It keeps nothing across
    launcher restarts: the children would have ended with the launcher.

    Args:
        make: builds slot ``name`` for the ``attempt``-th time (from 0).
        names: one for each slot.
        keep: start children again even when they left with exit code 0.
        final: exit codes that are an answer, not a crash.
        unready_starts: how many starts a child has to be ready for the first time; None for any number.
    """

    def __init__(
        self,
        make: Callable[[str, int], Child],
        names: Sequence[str],
        keep: bool = False,
        final: Collection[int] = (),
        unready_starts: int | None = None,
    ) -> None:
        self._make = make
        self._slots = {name: _Slot(RestartPolicy(keep, final, unready_starts)) for name in names}

    @property
    def children(self) -> list[Child]:
        """The latest child of every slot that was ever started."""
        return [slot.child for slot in self._slots.values() if slot.child is not None]

    @property
    def running(self) -> int:
        return sum(child.running for child in self.children)

    @property
    def pending(self) -> int:
        """Slots that wait for their restart."""
        return sum(slot.policy.restart_at is not None for slot in self._slots.values())

    @property
    def settled(self) -> bool:
        """Whether every slot was started, ended, and will not be started again."""
        return all(slot.settled for slot in self._slots.values())

    def start(self, now: float) -> list[Change]:
        """Start every slot for the first time."""
        return [self._start(name, slot, now) for name, slot in self._slots.items()]

    def seen(self, ids: Iterable[str]) -> None:
        """These children joined the job."""
        known = set(ids)
        for slot in self._slots.values():
            if slot.child is not None and slot.child.id in known:
                slot.policy.ready()

    def tick(self, now: float) -> list[Change]:
        """Look after every slot; restart what is due."""
        changes = []
        for name, slot in self._slots.items():
            child = slot.child
            if slot.policy.restart_at is not None:
                if now >= slot.policy.restart_at:
                    changes.append(self._start(name, slot, now))
                continue
            if child is None or slot.settled or (code := child.poll()) is None:
                continue
            verdict = slot.policy.exited(code, now)
            if verdict == "restart" and slot.policy.restart_at is not None:
                changes.append(Change("crashed", child, name, code, slot.policy.restart_at - now))
                continue
            slot.settled = True
            event: Literal["stopped", "hopeless"] = "stopped" if verdict == "stopped" else "hopeless"
            changes.append(Change(event, child, name, code, starts=slot.attempts))
        return changes

    def _start(self, name: str, slot: _Slot, now: float) -> Change:
        slot.child = self._make(name, slot.attempts)
        slot.child.start()
        slot.policy.started(now)
        slot.attempts += 1
        return Change("started" if slot.attempts == 1 else "restarted", slot.child, name)


@dataclass
class _Slot:
    policy: RestartPolicy
    child: Child | None = None
    attempts: int = 0
    settled: bool = False
