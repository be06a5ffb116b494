"""How often what happened, counted for the metrics. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any

from edldist.wire.events import FROM_MEMBERS
from edldist.wire.messages import Event, Scalar

__all__ = ["OWN_EVENTS", "Happenings"]

OWN_EVENTS = (
    "coordinator_started",
    "keys_changed",
    "scaled",
    "student_joined",
    "student_left",
    "student_lost",
    "teacher_joined",
    "teacher_left",
    "teacher_lost",
    "teacher_refused",
)
"""What the coordinator says itself."""


class Happenings:
    """Counts events by name, and adds up what checkpoints took. Owned by the coordinator's main thread.

    Names are few: the coordinator takes no other events from members than those that it knows. Each has a
    count from the start, since a scraper sees no growth in one that appears when it is 1 already.
    """

    def __init__(self) -> None:
        self._events = Counter(dict.fromkeys((*OWN_EVENTS, *FROM_MEMBERS), 0))
        self._checkpoint_s = 0.0
        self._checkpoint_bytes = 0
        self._checkpoint_step: int | None = None

    def note(self, event: Event) -> None:
        """Something happened."""
        self._events[event.event] += 1
        if event.event == "checkpoint_saved":
            self._checkpoint_s += _number(event.fields.get("seconds"))
            self._checkpoint_bytes += int(_number(event.fields.get("bytes")))
            self._checkpoint_step = int(_number(event.fields.get("step")))

    def told(self) -> dict[str, Any]:
        """As the status page has it."""
        checkpoints = {"seconds": self._checkpoint_s, "bytes": self._checkpoint_bytes}
        return {"events": dict(self._events), "checkpoints": checkpoints | {"step": self._checkpoint_step}}


def _number(value: Scalar) -> float:
    return 0 if isinstance(value, bool) or not isinstance(value, int | float) else value
