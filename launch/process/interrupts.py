"""Ctrl-C, SIGTERM and SIGHUP as a number that loops look at."""

from __future__ import annotations

import signal
import time
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupts"]

INSIST_AFTER_S = 1.0


class Interrupts:
    """Counts requests to stop while it is entered: one asks, two insist.

    Only a person insists, by a Ctrl-C (SIGINT) that comes a second or more after the request before. Managers
    of processes repeat themselves: systemd and ``scancel --full`` send SIGTERM to every process of a tree,
    of which each parent tells its children too; Slurm sends it twice within 10 ms at a time limit. All of
    that is one wish, to which the answer is a checkpoint; who wants no answer sends SIGKILL.

    Signals that were ignored from the start (``nohup``, a background job) stay ignored. Main thread only; the
    handler takes no lock, so that it may interrupt itself.
    """

    def __init__(self) -> None:
        self.count = 0
        self._last_s = 0.0
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) is not signal.SIG_IGN:
                self._former[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for signum, handler in self._former.items():
            signal.signal(signum, handler)
        self._former.clear()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        insists = signum == signal.SIGINT and now - self._last_s >= INSIST_AFTER_S
        if not self.count or insists:
            self.count += 1
        self._last_s = now
