"""Which signals ask a process to stop, and when one insists: the rule of every role, in one place.

::

    running ---any of ASKING---> asked ---SIGINT, a second or more after the signal before---> insisted

*Asked*, a process does what its role does at an end: ranks save a checkpoint, teacher workers finish what
they hold. Whoever stops processes on purpose is heeded alike: service managers and engines (SIGTERM, often
SIGHUP with it), a batch system that warns of a time limit or of a preemption (SIGUSR1 or SIGUSR2, as in
Slurm's ``--signal=USR1@60``), a person (SIGINT, Ctrl-C).

Managers repeat themselves. systemd and ``scancel --full`` send SIGTERM to every process of a tree, of which
each parent tells its children too; Slurm sends it twice within 10 ms at a time limit, and a warning before.
All of that is one wish. Only a person *insists*, by a Ctrl-C a second or more after the signal before: keys
bounce, and wrappers pass a Ctrl-C on that the terminal has sent already. Who wants no answer sends SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

__all__ = [
    "ASKING",
    "EXIT_INTERRUPTED",
    "EXIT_STOPPED",
    "INSIST_AFTER_S",
    "OPTIONAL",
    "StopWish",
    "end_by_signals",
    "ignore_signals",
    "unclaimed",
]

OPTIONAL = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Those that ask a process to stop unless it has an answer of its own to them, be it to ignore them."""
ASKING = (signal.SIGTERM, signal.SIGINT, *OPTIONAL)
"""All that ask a process to stop."""
INSIST_AFTER_S = 1.0

EXIT_STOPPED = 128 + signal.SIGTERM
"""Exit code of a role that was asked to stop before its work was done, and did so in order: started again it
goes on. It is that of a process that SIGTERM ends by default, of which the same is true."""
EXIT_INTERRUPTED = 128 + signal.SIGINT
"""Exit code of one that somebody insisted on ending, and of a whole job that was stopped."""


class StopWish:
    """What the signals of one process asked for so far.

    Takes no lock: ``told`` may be called in a signal handler that interrupts it, and any thread may read.

    Attributes:
        asked: whether it is to stop.
        asked_at: since when, in monotonic seconds; None while it is not.
        insisted: whether somebody wants no answer any more.
    """

    def __init__(self, insist_after_s: float = INSIST_AFTER_S) -> None:
        self.asked_at: float | None = None
        self.insisted = False
        self._insist_after_s = insist_after_s
        self._last_at = 0.0

    @property
    def asked(self) -> bool:
        return self.asked_at is not None

    def told(self, signum: int, now: float) -> None:
        """A signal came.

        Args:
            signum: one of ``ASKING``.
            now: monotonic seconds.
        """
        if self.asked_at is None:
            self.asked_at = now
        elif signum == signal.SIGINT and now - self._last_at >= self._insist_after_s:
            self.insisted = True
        self._last_at = now


def unclaimed(numbers: Iterable[signal.Signals] = OPTIONAL) -> list[signal.Signals]:
    """Those of some signals to which nobody in this process has an answer of its own.

    A handler is one, and so is that a signal is ignored (``nohup``). Handlers that are installed behind
    Python's back, as by ``faulthandler.register(SIGUSR1)``, show in the kernel's account of the process only.
    """
    caught = _caught()
    return [
        number
        for number in numbers
        if signal.getsignal(number) is _leave
        or (signal.getsignal(number) is signal.SIG_DFL and not caught >> (number - 1) & 1)
    ]


def end_by_signals() -> None:
    """Until this process has handlers, let each signal that asks it to stop end it as SIGTERM would.

    A warning of a batch system ends a process, too, that has no handler for it, but with an exit code that
    nobody takes for a stop in order. Whoever wants the signal later finds it unclaimed.

    It ends there and then, with nothing to tidy up: an exception would be lost where the signal finds
    somebody who catches all of them, as imports do, and the process would go on for as long as it likes.
    """
    for number in unclaimed((signal.SIGTERM, *OPTIONAL)):
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(OSError, ValueError):
        os.write(sys.stderr.fileno(), f"stopped by {signal.Signals(number).name}\n".encode())
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # it may be in the middle of a write
            stream.flush()
    os._exit(EXIT_STOPPED)


def ignore_signals() -> None:
    """This process is about to end, with an exit code that what is sent again must not change.

    Python takes its handlers away when it ends, and the signal would kill the process then. Main thread only.
    """
    for number in ASKING:
        signal.signal(number, signal.SIG_IGN)


def _caught() -> int:
    """The signals for which this process has handlers, as bits; none where the kernel does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith("SigCgt:")).split()[1], 16)
    except (OSError, StopIteration, ValueError, IndexError):
        return 0
