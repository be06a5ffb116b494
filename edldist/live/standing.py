"""Whether a generation's group is still what it was, for whoever waits for an operation of it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

__all__ = ["Standing"]


class Standing:
    """One generation, which stands until it is ended, once and for good. For any thread.

    Args:
        ask: why the group has lost a rank; empty while it has not. Asked often.
    """

    def __init__(self, ask: Callable[[], str]) -> None:
        self._ask = ask
        self._reason = ""
        # Invariant: once there is a reason, nothing is left in here.
        self._open: set[torch.futures.Future[str]] = set()
        self._lock = threading.Lock()

    @property
    def ended(self) -> str:
        """Why it has ended; empty while it stands."""
        return self._reason

    def lost(self) -> str:
        """Why its operations can come to no good end; empty while they can."""
        if not self._reason and (reason := self._ask()):
            self.end(reason)
        return self._reason

    def end(self, reason: str) -> None:
        """Let nobody wait for its operations any more. The first reason stays."""
        with self._lock:
            self._reason = self._reason or reason
            waiting, self._open = self._open, set()
        for future in waiting:
            future.set_result(self._reason)

    def expect(self) -> torch.futures.Future[str]:
        """A future that gets why the generation ended, unless ``settle`` is first."""
        future: torch.futures.Future[str] = torch.futures.Future()
        with self._lock:
            self._open.add(future)
        if self.lost():
            self.end(self._reason)
        return future

    def settle(self, future: torch.futures.Future[str]) -> None:
        """What it was expected for went well: it gets an empty string, unless it has a reason already."""
        with self._lock:
            if future not in self._open:
                return
            self._open.remove(future)
        future.set_result("")
