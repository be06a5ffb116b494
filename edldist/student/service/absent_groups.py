"""What a student does about teacher groups that are missing for a while: goes on, says so, and records it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Set

from edldist.student.queue.absences import Absences
from edldist.student.service.delivery import Delivery
from edldist.student.service.job.events import Events

__all__ = ["AbsentGroups"]

logger = logging.getLogger(__name__)


class AbsentGroups:
    """Tells the delivery without whose labels batches go on. Owned by the I/O thread.

    Args:
        patience_s: of the groups without which they may, by name.
        now: monotonic seconds.
    """

    def __init__(
        self, patience_s: Mapping[str, float], delivery: Delivery, events: Events, now: float
    ) -> None:
        self._absences = Absences(patience_s, now)
        self._delivery = delivery
        self._events = events

    def look(self, now: float, here: Set[str]) -> None:
        """Let time pass.

        Args:
            here: the groups of which a worker has joined the delivery.
        """
        change = self._absences.look(now, here | self._delivery.came())
        for teacher, gone_s in change.back.items():
            logger.warning("teacher %r is back after %.1f s: its labels are used again", teacher, gone_s)
            self._events.labels_back(teacher, gone_s)
        for teacher, gone_s in change.missing.items():
            logger.warning(
                "teacher %r has had no worker for %.1f s: batches go on without its labels until one comes "
                "(missing='skip')",
                *(teacher, gone_s),
            )
            self._events.labels_missing(teacher, gone_s)
        self._delivery.miss(self._absences.missing)
