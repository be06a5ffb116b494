"""Tells whoever stands beside a coordinator what is new in its job, twice a second and at the end."""

from __future__ import annotations

import math
from collections.abc import Callable

from edldist.coordinator.course.records import Records
from edldist.coordinator.status import StatusView
from edldist.wire.messages import Status

__all__ = ["Telling"]

_TELL_S = 0.5


class Telling:
    """Hands a listener the state of the job, with what happened since it was told last.

    Owned by the thread that runs the coordinator.

    Args:
        listener: neither raises nor waits; None if nobody listens.
        view: what the state is.
        records: what happened.
    """

    def __init__(self, listener: Callable[[Status], None] | None, view: StatusView, records: Records) -> None:
        self._listener = listener
        self._view = view
        self._records = records
        self._told = 0  # number of the last record
        self._due_at = -math.inf

    def turn(self, now: float) -> None:
        """Tell what is new, if it is time."""
        if self._listener is not None and now >= self._due_at:
            self._due_at = now + _TELL_S
            self.tell(now)

    def tell(self, now: float) -> None:
        """Tell all that is new, in as many parts as it takes."""
        while self._listener is not None:
            status = self._view.whole(now, self._told)
            self._told = status.seq
            self._listener(status)
            if self._told >= self._records.last:
                return
