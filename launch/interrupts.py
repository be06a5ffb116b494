"""Ctrl-C, SIGTERM and SIGHUP as a number that loops look at."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupts"]


class Interrupts:
    """Counts requests to stop while it is entered: one asks, two insist.

    Signals that were ignored from the start (``nohup``, a background job) stay ignored. Main
    thread only.
    """

    def __init__(self) -> None:
        self.count = 0
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
        self.count += 1
