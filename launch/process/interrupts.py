"""Signals that ask a command to stop, as something that its loops look at."""

from __future__ import annotations

import signal
import time
from types import FrameType, TracebackType
from typing import Any

from edldist.signals import ASKING, StopWish
from edldist_launch.process.exits import was_asked

__all__ = ["Interrupts"]

_TOGETHER_S = 1.0
"""Processes of a tree are told one after the other: the children perhaps so long before their parent."""
_POLL_S = 0.01


class Interrupts(StopWish):
    """What this process was asked for while it is entered (see ``edldist.signals``).

    Signals that were ignored from the start (``nohup``, a background job) stay ignored. Main thread only; the
    handler takes no lock, so that it may interrupt itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        for signum in ASKING:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                self._former[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for signum, handler in self._former.items():
            signal.signal(signum, handler)
        self._former.clear()

    def come_as(self, code: int) -> bool:
        """Whether this process is asked to stop, or is about to be, as a child was that ended with this code.

        Whoever ends a whole tree of processes tells them in any order.
        """
        deadline = time.monotonic() + _TOGETHER_S
        while not self.asked and was_asked(code) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return self.asked

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.told(signum, time.monotonic())
