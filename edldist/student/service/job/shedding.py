"""What a student does about an overloaded fleet, as the coordinator says (``Shed``).

::

    nothing --Shed--> as told --not said again in time--> nothing

The coordinator decides, because it alone knows what all jobs ask and what the workers give. It may die: what
it said last holds for its time and no longer, and workers serve by priority and weight all the same. No step
drops, skips or reorders anything: a batch that is open stays open, and what was read before is labelled as it
was read.
"""

from __future__ import annotations

import logging

from edldist.observe.overload import STEPS
from edldist.student.service.delivery import Delivery
from edldist.student.teachers.fallback import Fallback
from edldist.wire.messages import Scalar, Shed

__all__ = ["Shedding"]

logger = logging.getLogger(__name__)

SAY_EVERY_S = 60.0


class Shedding:
    """Does as told, and counts. Owned by the I/O thread; figures are for any thread.

    Args:
        delivery: reads less, or nothing.
        low_watermark: of its queue: so many batches may still be read ahead.
        fallback: where batches go that are read from now on; None where the job allows no degradation.
    """

    def __init__(self, delivery: Delivery, low_watermark: int, fallback: Fallback | None) -> None:
        self._delivery = delivery
        self._credits = max(1, low_watermark)
        self._fallback = fallback
        self._shed: Shed | None = None
        self._until = 0.0
        self._since = 0.0
        self._waits_since: float | None = None
        self._say_at = 0.0
        self._eased_s = self._waited_s = 0.0
        self._ever = False

    def take(self, shed: Shed, now: float) -> None:
        """The coordinator says what to do."""
        self._until = now + shed.retry_after_s
        self._count(now)
        former, self._shed = self._shed, shed if shed.step else None
        if self._shed is None and former is None:
            return
        self._ever = True
        if former is None or former.step != shed.step:
            logger.info("the fleet is overloaded: %s", STEPS[shed.step])
        self._wait(shed.waits, now)
        self._delivery.ease(self._credits if shed.step else None, bool(shed.waits))
        if self._fallback is not None:
            before = self._fallback.labels_by
            self._fallback.degrade(shed.degrade)
            if (labels_by := self._fallback.labels_by) != before:
                logger.info("batches that are read now are labelled by %s", labels_by or "whom the loop asks")

    def look(self, now: float) -> None:
        """Let time pass."""
        if self._shed is None:
            return
        if now >= self._until:
            self.take(Shed(step=0, retry_after_s=self._shed.retry_after_s), now)
        elif self._waits_since is not None and now >= self._say_at:
            self._say_at = now + SAY_EVERY_S
            logger.warning("reads nothing for %.0f s now: %s", now - self._waits_since, self._shed.waits)

    def stats(self, now: float) -> dict[str, Scalar]:
        """Figures; none as long as there never was an overload."""
        if not self._ever:
            return {}
        self._count(now)
        shed = self._shed
        stats: dict[str, Scalar] = {
            "shed": shed.step if shed is not None else 0,
            "shed_s": round(self._eased_s, 3),
            "held_s": round(self._waited_s, 3),
        }
        if shed is not None and shed.waits:
            stats["held_back"] = shed.waits
        if self._fallback is not None:
            stats["degraded"] = self._fallback.samples
            if labels_by := self._fallback.labels_by:
                stats["degraded_to"] = labels_by
        return stats

    def _wait(self, why: str, now: float) -> None:
        if why and self._waits_since is None:
            self._waits_since, self._say_at = now, now + SAY_EVERY_S
            logger.warning("reads nothing until there is room on the fleet: %s", why)
        elif not why and self._waits_since is not None:
            logger.warning("there is room on the fleet after %.1f s: reads on", now - self._waits_since)
            self._waits_since = None

    def _count(self, now: float) -> None:
        if self._shed is not None:
            self._eased_s += now - self._since
            if self._shed.waits:
                self._waited_s += now - self._since
        self._since = now
