"""For how long a label queue has been full. Pure."""

from __future__ import annotations

__all__ = ["Fullness"]


class Fullness:
    """Adds up the time in which every open batch is labelled, and no more should be read."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._before_s = 0.0

    def note(self, full: bool, now: float) -> float | None:
        """The queue is full now, or is not; since when it has been full, where it no longer is."""
        if full and self._since is None:
            self._since = now
        elif not full and self._since is not None:
            since, self._since = self._since, None
            self._before_s += now - since
            return since
        return None

    def seconds(self, now: float) -> float:
        """All of that time so far."""
        return self._before_s + (0.0 if self._since is None else now - self._since)
