"""What happened in the job: a bounded, numbered list of events and reports.

Pure. It does not outlive the coordinator; whoever keeps ``events.jsonl`` asks often enough.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from edldist.coordinator.course.happenings import Happenings
from edldist.wire.messages import Event, Report

__all__ = ["Records"]

MAX_RECORDS = 20_000
MAX_RECORDS_A_REPLY = 2_000
MAX_BYTES = 64 << 20
MAX_BYTES_A_REPLY = 4 << 20
MAX_REPORTERS = 10_000


class _Held(NamedTuple):
    record: Event | Report
    encoded_bytes: int


@dataclass
class _Reporter:
    held: int
    gap_before: int | None = None


class Records:
    """Keeps the newest records, and every numbered one once.

    Owned by the coordinator's main thread. Numbers start at 1.

    Args:
        told: is told each record that is taken in.
    """

    def __init__(self, told: Callable[[Event | Report], None] = lambda record: None) -> None:
        self._told = told
        self._ring: deque[_Held] = deque()
        self._bytes = 0
        self._last = 0
        self._reporters: OrderedDict[str, _Reporter] = OrderedDict()
        self.happenings = Happenings()
        """How often what happened, whether it is still held or not."""

    @property
    def last(self) -> int:
        """Number of the newest record, 0 before the first."""
        return self._last

    def add(self, record: Event | Report) -> None:
        """Append a record; the oldest ones make room."""
        size = len(msgspec.msgpack.encode(record))
        self._ring.append(_Held(record, size))
        self._bytes += size
        self._last += 1
        if isinstance(record, Event):
            self.happenings.note(record)
        while len(self._ring) > MAX_RECORDS or (self._bytes > MAX_BYTES and len(self._ring) > 1):
            self._bytes -= self._ring.popleft().encoded_bytes
        self._told(record)

    def add_once(self, report: Report | Event, keep: bool = True) -> int:
        """Append a report, or a numbered event, unless it is held already.

        Args:
            report: with its reporter and number.
            keep: false to acknowledge it and no more.

        Returns:
            Number of the reporter's last one up to which all are held: what to acknowledge.
            One beyond the next one waits for the missing ones, which the reporter repeats
            before it. If it comes again without them, the reporter has them no longer (their
            acknowledgement came from a former coordinator, or its buffer overflowed) and it is taken.
        """
        reporter = self._reporters.get(report.reporter)
        if reporter is None:
            reporter = self._reporters[report.reporter] = _Reporter(held=0)
            if len(self._reporters) > MAX_REPORTERS:
                self._reporters.popitem(last=False)
        self._reporters.move_to_end(report.reporter)
        if report.seq <= reporter.held:
            return reporter.held
        if report.seq > reporter.held + 1 and report.seq != reporter.gap_before:
            if reporter.gap_before is None or report.seq < reporter.gap_before:
                reporter.gap_before = report.seq
            return reporter.held
        reporter.held = report.seq
        reporter.gap_before = None
        if keep:
            self.add(report)
        return reporter.held

    def events_since(self, number: int, event: str) -> Iterator[Event]:
        """The events of one name after ``number`` that are still held, newest first."""
        for held in itertools.islice(reversed(self._ring), max(0, self._last - number)):
            if isinstance(held.record, Event) and held.record.event == event:
                yield held.record

    def since(self, number: int) -> tuple[list[Event | Report], int]:
        """The records after ``number`` that are still held, oldest first, as many as fit a reply.

        Returns:
            The records, and the number of the last one included (ask for what follows with it).
            Without any: the number of the newest record.
        """
        first = self._last - len(self._ring) + 1
        start = max(number + 1, first)
        found: list[Event | Report] = []
        total_bytes = 0
        for position in range(start - first, len(self._ring)):
            held = self._ring[position]
            total_bytes += held.encoded_bytes
            if found and (len(found) >= MAX_RECORDS_A_REPLY or total_bytes > MAX_BYTES_A_REPLY):
                break
            found.append(held.record)
        return found, (start + len(found) - 1 if found else self._last)
