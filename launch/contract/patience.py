"""Asks an engine again that was there a moment ago: a restart of its controller ends nobody's watching."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from edldist.errors import LaunchError

__all__ = ["OUTAGE_S", "Patience"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

OUTAGE_S = 600.0
"""How long an engine may be silent that somebody watches a job by."""


class Patience:
    """One watcher's patience with one engine; none with one that never told anything, and may be wrong.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told = False
        self._silent_since: float | None = None

    def ask(self, question: Callable[[], T], meanwhile: T) -> T:
        """What the engine tells, or ``meanwhile`` while it is silent, which is said once.

        Raises:
            LaunchError: it has never told anything, or is silent for longer than ``OUTAGE_S``.
        """
        begun = self._clock()
        try:
            answer = question()
        except LaunchError as exc:
            if not self._told:
                raise
            if self._silent_since is None:
                self._silent_since = begun
                logger.warning(
                    "the engine does not tell how the job is (%s): asking again for up to %.0f minutes",
                    exc,
                    OUTAGE_S / 60,
                )
            elif self._clock() - self._silent_since > OUTAGE_S:
                raise LaunchError(
                    f"the engine has not told for {OUTAGE_S / 60:.0f} minutes how the job is: {exc}"
                ) from exc
            return meanwhile
        self._told = True
        if self._silent_since is not None:
            self._silent_since = None
            logger.warning("the engine tells again how the job is")
        return answer
