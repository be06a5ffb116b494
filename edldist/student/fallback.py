"""Which one of several teachers labels a batch, where the others are cheaper ones for an overloaded fleet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edldist.errors import ConfigError
from edldist.student.route import Owners, Route

__all__ = ["Fallback"]


class Fallback(Route):
    """Sends whole batches to the first of its teachers, or to a later one while the job is degraded.

    The thread that reads calls it; another one may call ``degrade``. A batch that was read keeps its teacher.

    Args:
        teachers: their names, the one that is wanted first.

    Attributes:
        samples: how many went to others than the first.

    Raises:
        ConfigError: there is nothing to fall back to, or a name is there twice.
    """

    def __init__(self, teachers: Sequence[str]) -> None:
        if len(teachers) < 2 or len(set(teachers)) != len(teachers):
            raise ConfigError(
                f"EDLDIST_DEGRADE: a loop that asks {teachers[0]!r} cannot be degraded to "
                f"{', '.join(map(repr, teachers[1:])) or 'nobody'}: name other teachers, each once"
            )
        self._last = len(teachers) - 1
        self._passed_over = 0
        self.samples = 0

    def degrade(self, steps: int) -> None:
        """From the next batch on, this many teachers are passed over; for any thread."""
        self._passed_over = min(steps, self._last)

    def __call__(self, batch: Any, samples: int, pick: Callable[[Any, str | int], Any]) -> Owners:
        place = self._passed_over
        self.samples += samples if place else 0
        return np.full(samples, place, np.intp)
