"""Where the thread that owns the coordinator's state leaves what other threads may tell of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["StatusBoard"]

MAX_AGE_S = 0.25
ANSWER_WITHIN_S = 2.0


class StatusBoard:
    """The latest snapshot as JSON bytes, made only while someone asks, and the time of the owner's last turn.

    ``read`` and ``stuck_s`` are for any thread; ``wanted``, ``turned`` and ``publish`` belong to the owner of
    the state, which calls ``turned`` and looks at ``wanted`` once per turn of its loop.

    Args:
        wake: ends the owner's wait; safe from any thread.
        longest_turn_s: an owner that has not turned for longer is stuck.
    """

    def __init__(self, wake: Callable[[], None], longest_turn_s: float) -> None:
        self._wake = wake
        self._longest_turn_s = longest_turn_s
        self._changed = threading.Condition()
        self._body = b""
        self._published = 0
        self._published_at = float("-inf")
        self._turned_at = time.monotonic()
        self.wanted = False

    def turned(self) -> None:
        """The owner's loop goes round."""
        self._turned_at = time.monotonic()

    def stuck_s(self) -> float | None:
        """For how long the owner has not turned, or None if that is no longer than it may take."""
        away_s = time.monotonic() - self._turned_at
        return away_s if away_s > self._longest_turn_s else None

    def publish(self, body: bytes) -> None:
        with self._changed:
            self.wanted = False
            self._body = body
            self._published += 1
            self._published_at = time.monotonic()
            self._changed.notify_all()

    def read(self) -> bytes | None:
        """A snapshot at most ``MAX_AGE_S`` old, or None when the owner makes none in time."""
        with self._changed:
            if time.monotonic() - self._published_at <= MAX_AGE_S:
                return self._body
            seen = self._published
            self.wanted = True
        self._wake()
        with self._changed:
            fresh = self._changed.wait_for(lambda: self._published > seen, ANSWER_WITHIN_S)
            return self._body if fresh else None
