"""Waiting for labels, with a word to the user now and then."""

from __future__ import annotations

import logging

from edldist.clock import Clock
from edldist.errors import UnsuitableTeacherError
from edldist.lifecycle import stopping
from edldist.student.loop.figures import LoopFigures
from edldist.student.service.service import StudentService
from edldist.student.service.trail import LOOP
from edldist.tracing.kinds import Kind

__all__ = ["LabelWait"]

logger = logging.getLogger(__name__)

_COMPLAIN_S = 10.0
_STOP_STARVED_S = 5.0
_LEAST_RECORDED_S = 10e-6


class LabelWait:
    """One wait for the labels that are due, counted, and said if it is long. Owned by the loop's thread."""

    def __init__(self, service: StudentService, clock: Clock, figures: LoopFigures) -> None:
        self._service = service
        self._clock = clock
        self._figures = figures
        self._complain_after_s = _COMPLAIN_S
        self._begun = clock.monotonic()
        self._tape = service.recorder[LOOP]
        self._waited_s = 0.0

    def for_labels(self, reading: bool, most_s: float = 1.0) -> bool:
        """Wait until the head of the queue is ready (then True), the data loader should be read, or a while.

        Args:
            reading: whether there is more to read.
            most_s: for so long.

        Raises:
            EdlDistError: see ``Delivery.wait``; or no worker that is here suits this student.
            SystemExit: this process was asked to stop.
        """
        # Time in the data loader is not time without labels: only the wait itself counts.
        before = self._clock.monotonic()
        ready = self._service.delivery.wait(most_s, reading=reading)
        now = self._clock.monotonic()
        waited_s = now - before
        if self._tape.on and waited_s > _LEAST_RECORDED_S:
            self._tape.write(Kind.STARVED, before, now)
        self._waited_s += waited_s
        self._figures.waited(waited_s)
        if ready:
            return True
        self._figures.waiting_s = self._waited_s
        if unsuited := self._service.unsuited(self._begun):
            raise UnsuitableTeacherError(unsuited)
        if self._waited_s > _STOP_STARVED_S and stopping.asked():
            logger.warning("asked to stop while waiting for labels: leaving without a checkpoint")
            raise SystemExit(0)
        if self._waited_s > self._complain_after_s:
            self._complain_after_s += _COMPLAIN_S
            self._complain()
        return False

    def _complain(self) -> None:
        missing = self._service.missing_teachers()
        others = [group for group in self._service.groups_here() if group not in missing]
        if missing:
            logger.warning(
                "waiting for labels for %.0f s: no worker of %s is connected%s; going on when one comes",
                self._waited_s,
                ", ".join(
                    f"{name!r} (one was refused: {reason})" if reason else repr(name)
                    for name, reason in missing.items()
                ),
                f"; there are workers of {', '.join(map(repr, others))} (a worker's --name and the loader's "
                "teacher= have to agree)"
                if others
                else "",
            )
        else:
            logger.warning(
                "waiting for labels for %.0f s although %d workers are connected",
                self._waited_s,
                self._service.teachers(),
            )
