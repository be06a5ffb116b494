"""Signals that ask to stop, heard in a thread of its own: a main thread that hangs in a model hears none.

Python runs signal handlers in the main thread, between two of its instructions: never, while a pass hangs on
its device or in a library. The interpreter's own handler writes each signal's number to a descriptor at once,
and a thread reads it there. (A model that hangs and keeps the interpreter lock stops this thread too.)

::

    serving --a signal--> leaving --its time is up--> leave without the main thread --> exit 143
       |                     |                              |
       |                     +--- a person insists ---------+--> exit 130, at once
       +-- nothing to leave yet (the model is being loaded): exit 143

Which signals these are, and who insists, says ``edldist.signals``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

from edldist.signals import (
    EXIT_INTERRUPTED,
    EXIT_STOPPED,
    INSIST_AFTER_S,
    OPTIONAL,
    StopWish,
    unclaimed,
)

__all__ = ["Leaver", "StopSignals"]

logger = logging.getLogger(__name__)

_LEAVE_S = 5.0
_LEFT = 0  # written where the interpreter writes the numbers of signals


class Leaver(Protocol):
    """What is to leave. Both are called in a thread of their own."""

    def drain(self) -> None:
        """Finish, and let the main thread end."""
        ...

    def abandon(self) -> None:
        """Leave now, whatever the main thread does."""
        ...


class StopSignals:
    """Makes a process leave, within a time.

    Made, entered and left by the main thread.

    Args:
        drain_s: after the first signal, time for the main thread to end.
        insist_after_s: as of ``StopWish``.
        leave: ends the process with an exit code; for tests.
    """

    def __init__(
        self,
        drain_s: float,
        insist_after_s: float = INSIST_AFTER_S,
        leave: Callable[[int], Any] = os._exit,
    ) -> None:
        self._drain_s = drain_s
        self._wish = StopWish(insist_after_s)
        self._leave = leave
        self._leaver: Leaver | None = None
        self._closed = False
        self._ours, self._theirs = socket.socketpair()
        self._former: dict[int, Any] = {}
        self._former_fd = -1
        self._thread = threading.Thread(target=self._run, name="edldist-signals", daemon=True)

    def serve(self, leaver: Leaver) -> None:
        """From now on there is something to leave."""
        self._leaver = leaver

    def __enter__(self) -> StopSignals:
        self._theirs.setblocking(False)
        self._former_fd = signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
        heeded = (signal.SIGTERM, signal.SIGINT, *unclaimed())
        self._former = {number: signal.signal(number, self._on_signal) for number in heeded}
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._former_fd)
        self._closed = True
        self._theirs.close()
        self._thread.join()
        self._ours.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """The thread was told, unless a library (asyncio is one) has taken the descriptor's place."""
        told = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        if told != self._theirs.fileno():
            self._tell(number)

    def _tell(self, number: int) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more
            self._theirs.send(bytes([number]))

    # --- the thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        if self._hear(None) is None:
            return
        leaver = self._leaver
        if leaver is None:
            self._leave(EXIT_STOPPED)
            return
        leaver.drain()
        insists = self._wait(self._drain_s)
        if not insists and not self._closed:
            logger.warning("a pass has not ended within %g s (--drain-s): leaving without it", self._drain_s)
            threading.Thread(target=self._abandon, args=(leaver,), daemon=True).start()
            insists = self._wait(_LEAVE_S)
        if not self._closed:
            self._leave(EXIT_INTERRUPTED if insists else EXIT_STOPPED)

    def _wait(self, timeout_s: float) -> bool:
        """Whether a person insists before time is up, the leaver left, or this is closed."""
        begun = time.monotonic()
        while not self._wish.insisted:
            if self._hear(max(0.0, begun + timeout_s - time.monotonic())) in (None, _LEFT):
                return False
        return True

    def _abandon(self, leaver: Leaver) -> None:
        leaver.abandon()
        self._tell(_LEFT)

    def _hear(self, timeout_s: float | None) -> int | None:
        """The number of the next signal to leave, or that the leaver left.

        Returns:
            None when time is up, or when this is closed.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if until is None else max(0.0, until - time.monotonic())
            if not select.select([self._ours], [], [], left_s)[0]:
                return None
            heard = self._ours.recv(1)
            if not heard:
                return None
            if heard[0] == _LEFT:
                return _LEFT
            if self._asks(heard[0]):
                self._wish.told(heard[0], time.monotonic())
                return heard[0]

    def _asks(self, number: int) -> bool:
        """Not so a signal to which somebody else has an answer, such as the model since it was loaded."""
        return number in self._former and (
            number not in OPTIONAL or signal.getsignal(number) == self._on_signal
        )
