"""What members report to the record of their job: checked, recorded once, and told to be so."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edldist.coordinator.course.records import Records
from edldist.errors import WireError
from edldist.wire.events import check_event
from edldist.wire.messages import Ack, Event, Message, Report
from edldist.wire.transport import Sender

__all__ = ["Reported", "brief"]

logger = logging.getLogger(__name__)


class Reported:
    """Takes events and reports into the records. Owned by the thread that runs the coordinator.

    Args:
        records: of the job.
        send: answers who reports.

    Attributes:
        refused: how many events were dropped, because no member of ours reports such.
    """

    def __init__(self, records: Records, send: Callable[[Sender, Message], object]) -> None:
        self._records = records
        self._send = send
        self.refused = 0

    def report(self, peer: Sender, report: Report) -> None:
        """A script's figures came."""
        self._send(peer, Ack(seq=self._records.add_once(report)))

    def event(self, peer: Sender, event: Event) -> None:
        """Something happened to a member, which is answered if it says so until it is heard."""
        sound = self._is_sound(peer, event)
        if event.reporter:
            self._send(peer, Ack(seq=self._records.add_once(event, keep=sound)))
        elif sound:
            self._records.add(event)
        if event.event == "clock_skew" and sound:
            logger.warning("%s: %s", event.event, brief(event))

    def _is_sound(self, peer: Sender, event: Event) -> bool:
        try:
            check_event(event)
        except WireError as exc:
            self.refused += 1
            if self.refused == 1:
                logger.warning("dropped what %s reported: %s (further ones are only counted)", peer, exc)
            return False
        return True


def brief(event: Event) -> str:
    """What a log line says of an event; its record has every figure."""
    shown = (
        *("id", "name", "before", "wanted", "rank", "host", "pid", "silent_s", "skew_s", "reason"),
        *("rotated", "added", "retired", "former"),
    )
    return ", ".join(f"{key} {event.fields[key]}" for key in shown if event.fields.get(key) is not None)
