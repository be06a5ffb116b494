"""How much waits before the stages of a worker: the most that was seen since it was told last. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edldist.teacher.tasks import Level
from edldist.wire.messages import Scalar

__all__ = ["Levels"]

LOOK_EVERY_S = 0.1
_EMPTY = Level(0, 0)


class Levels:
    """The queues of one worker. Owned by the I/O thread.

    Args:
        waiting: what waits now, by the stage that it waits for.

    Attributes:
        due_at: when to look again, monotonic seconds.
    """

    def __init__(self, waiting: Callable[[], Mapping[str, Level]]) -> None:
        self._waiting = waiting
        self._most: dict[str, Level] = {}
        self.due_at = float("-inf")

    def look(self, now: float) -> None:
        """Look once more."""
        self.due_at = now + LOOK_EVERY_S
        for stage, (rows, nbytes) in self._waiting().items():
            most = self._most.get(stage, _EMPTY)
            self._most[stage] = Level(max(rows, most.rows), max(nbytes, most.nbytes))

    def told(self, now: float) -> dict[str, Scalar]:
        """The most since this was asked last, as a member reports it."""
        self.look(now)
        most, self._most = self._most, {}
        told: dict[str, Scalar] = {}
        for stage, (rows, nbytes) in most.items():
            told[f"{stage}_queue_samples"], told[f"{stage}_queue_bytes"] = rows, nbytes
        return told
