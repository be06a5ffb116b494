"""One child process: start, watch, log and end it.

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edldist.clock import Clock
from edldist_launch.contract.log_order import stamp_of
from edldist_launch.local.log_pipe import LogPipe
from edldist_launch.process.tie import tied_command

__all__ = ["Child", "describe_exit", "end_children"]

logger = logging.getLogger(__name__)

HURRY_S = 3.0


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
    """Cut the agent's report (some 30 lines) that follows a failed script's own traceback.

    What ``edldist student`` says of it comes later, or in between: whether a restart would help.
    """
    for number in range(len(lines) - 1, -1, -1):
        if "torch/distributed/elastic" in lines[number] and "failed (exitcode" in lines[number]:
            ours = [line for line in lines[number:] if stamp_of(line) is not None]
            return [*lines[:number], *ours] or lines
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
