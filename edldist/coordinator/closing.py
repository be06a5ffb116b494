"""When a coordinator that was told to leave may end. Pure.

Managers of processes end a whole tree at once: the coordinator is told together with the ranks that save a
checkpoint and report it, and with the workers that say goodbye. Were it gone first, each of them would wait
for it. So it goes on as if nothing had been said until everyone has hung up::

    serving --told--> leaving --nobody is connected, LEAVE_S are over, or a person insists--> ended

The launcher tells its coordinator once more: what is one wish, and who insists, says ``edldist.signals``.
"""

from __future__ import annotations

from edldist.signals import StopWish

__all__ = ["LEAVE_S", "Closing"]

LEAVE_S = 5.0
"""A coordinator ends so long after it was told to, whoever is still connected."""


class Closing:
    """One coordinator's end. ``told`` may interrupt ``over``: it comes from a signal handler."""

    def __init__(self) -> None:
        self._wish = StopWish()

    @property
    def begun(self) -> bool:
        """Whether it was told to leave."""
        return self._wish.asked

    def told(self, signum: int, now: float) -> None:
        """A signal came.

        Args:
            signum: which.
            now: monotonic seconds.
        """
        self._wish.told(signum, now)

    def over(self, connected: int, now: float) -> bool:
        """Whether to end now.

        Args:
            connected: how many are.
            now: monotonic seconds.
        """
        asked_at = self._wish.asked_at
        if asked_at is None:
            return False
        return self._wish.insisted or not connected or now - asked_at >= LEAVE_S
