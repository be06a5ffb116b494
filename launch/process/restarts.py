"""When a process that ended is to be started again. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from edldist_launch.process.exits import was_asked

__all__ = ["RestartPolicy", "Verdict"]

BACKOFF_MIN_S = 0.5
BACKOFF_MAX_S = 30.0
HEALTHY_S = 60.0
EXIT_UNUSABLE = 2

Verdict = Literal["restart", "stopped", "hopeless"]


class RestartPolicy:
    """Decides about one child that ended, from its exit code and the time. Pure.

    A crash is answered by a restart after 0.5 s, doubled with each crash up to 30 s, and again 0.5 s after 60
    s of health. Exit 0 means that it is done, and some other codes that it was asked to leave
    (``exits.was_asked``): neither is a crash. Exit 2 of a child that was never ready means that it cannot
    work at all (wrong options, a model that does not load): restarting would only repeat it. So does a crash,
    by a signal too, that comes before it was ready in each of the first ``unready_starts`` starts.

    Args:
        keep: start it again after these, too.
        final: exit codes that are an answer of its own, never worth a restart.
        unready_starts: how many starts a child has to be ready for the first time; None for any number.
    """

    def __init__(
        self, keep: bool = False, final: Collection[int] = (), unready_starts: int | None = None
    ) -> None:
        self._keep = keep
        self._final = frozenset(final)
        self._unready_starts = unready_starts
        self._starts = 0
        self._delay_s = BACKOFF_MIN_S
        self._started_at = 0.0
        self._ever_ready = False
        self.restart_at: float | None = None

    def started(self, now: float) -> None:
        """The child runs from now on."""
        self._started_at = now
        self._starts += 1
        self.restart_at = None

    def ready(self) -> None:
        """The child did its work at least once (a teacher worker joined)."""
        self._ever_ready = True

    def exited(self, code: int, now: float) -> Verdict:
        """The child ended; with ``restart``, ``restart_at`` says when to start it again."""
        if (code == 0 or was_asked(code)) and not self._keep:
            return "stopped"
        if code in self._final or (code == EXIT_UNUSABLE and not self._ever_ready):
            return "hopeless"
        if not self._ever_ready and self._starts == self._unready_starts:
            return "hopeless"
        if now - self._started_at >= HEALTHY_S:
            self._delay_s = BACKOFF_MIN_S
        self.restart_at = now + self._delay_s
        self._delay_s = min(BACKOFF_MAX_S, 2 * self._delay_s)
        return "restart"
