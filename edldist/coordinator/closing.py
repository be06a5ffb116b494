"""When a coordinator that was told to leave may end. Pure.

Managers of processes end a whole tree at once: the coordinator is told together with the ranks that save a
checkpoint and report it, and with the workers that say goodbye. Were it gone first, each of them would wait
for it. So it goes on as if nothing had been said until everyone has hung up::

    serving --told--> leaving --nobody is connected, LEAVE_S are over, or a person insists--> ended

Managers also repeat themselves, and the launcher tells its coordinator once more: that is one wish. A person
insists, by a Ctrl-C (SIGINT) a second or more after the signal before.
"""

from __future__ import annotations

import signal

__all__ = ["LEAVE_S", "Closing"]

LEAVE_S = 5.0
"""A coordinator ends so long after it was told to, whoever is still connected."""
INSIST_AFTER_S = 1.0


class Closing:
    """One coordinator's end. ``told`` may interrupt ``over``: it comes from a signal handler."""

    def __init__(self) -> None:
        self._told_at: float | None = None
        self._last_told_at = 0.0
        self._insisted = False

    @property
    def begun(self) -> bool:
        """Whether it was told to leave."""
        return self._told_at is not None

    def told(self, signum: int, now: float) -> None:
        """A signal came.

        Args:
            signum: which.
            now: monotonic seconds.
        """
        if self._told_at is None:
            self._told_at = now
        elif signum == signal.SIGINT and now - self._last_told_at >= INSIST_AFTER_S:
            self._insisted = True
        self._last_told_at = now

    def over(self, connected: int, now: float) -> bool:
        """Whether to end now.

        Args:
            connected: how many are.
            now: monotonic seconds.
        """
        if self._told_at is None:
            return False
        return self._insisted or not connected or now - self._told_at >= LEAVE_S
