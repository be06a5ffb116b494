"""For how long a worker has had nothing to do. Pure."""

from __future__ import annotations

from edldist.tracing.kinds import Kind
from edldist.tracing.tape import Tape

__all__ = ["Idleness"]


class Idleness:
    """Adds up the time in which there is nothing to do, and nobody has anything to give.

    Args:
        now: monotonic seconds; it begins with nothing to do.
        tape: where that is written down, while somebody traces.
    """

    def __init__(self, now: float, tape: Tape) -> None:
        self._tape = tape
        self._before_s = 0.0
        self._since: float | None = now

    def note(self, idle: bool, now: float) -> None:
        """There is nothing to do now, or there is."""
        if idle:
            self._since = now if self._since is None else self._since
        elif self._since is not None:
            self._before_s += now - self._since
            if self._tape.on:
                self._tape.write(Kind.IDLE, self._since, now)
            self._since = None

    def seconds(self, now: float) -> float:
        """All of that time so far. A trace is told of it in pieces, if it lasts."""
        if self._since is not None:
            self.note(False, now)
            self._since = now
        return self._before_s
