"""A bounded ring of records of fixed size, written by one thread without a lock. Pure.

A tape that is off costs its writer one look at an attribute, and no memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from edldist.tracing.kinds import Kind

__all__ = ["MOST_RECORDS", "RECORD_BYTES", "Record", "Tape", "records_of"]

MOST_RECORDS = 1 << 16
"""Of one tape, 2.5 MiB."""
_LAYOUT = struct.Struct("<BxHIddQQ")
RECORD_BYTES = _LAYOUT.size
_KINDS = {int(kind): kind for kind in Kind}
_MOST_AMOUNT, _MOST_PEER, _MOST_KEY = (1 << 32) - 1, (1 << 16) - 1, (1 << 64) - 1


class Record(NamedTuple):
    """One record; ``start`` and ``end`` are monotonic seconds, and the rest as its kind says."""

    kind: Kind
    peer: int
    amount: int
    start: float
    end: float
    key: int
    more: int


class _Ring:
    """The records of one trace. A writer that was late writes to a ring that nobody reads any more."""

    __slots__ = ("buffer", "capacity", "written")

    def __init__(self, capacity: int) -> None:
        self.buffer = bytearray(capacity * RECORD_BYTES)
        self.capacity = capacity
        self.written = 0


class Tape:
    """The records of one thread, or of whatever a lock guards that its writers hold anyway.

    While ``on``, its one writer calls ``write``; another thread begins and ends it. One record that is being
    written while it ends may be missing from what it returns.

    Args:
        now: monotonic seconds.

    Attributes:
        on: whether anything is written down. To be looked at before ``write`` is called.
        sample: of tasks, only those count whose lease this divides.
    """

    __slots__ = ("_ring", "now", "on", "sample")

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.on = False
        self.sample = 1
        self._ring: _Ring | None = None

    def write(
        self, kind: int, start: float, end: float, key: int = 0, amount: int = 0, more: int = 0, peer: int = 0
    ) -> None:
        """Add a record; in a full ring the oldest makes room. What is too large for a field is cut to fit."""
        if (ring := self._ring) is None:
            return  # it ended meanwhile
        at = ring.written % ring.capacity * RECORD_BYTES
        try:
            _LAYOUT.pack_into(ring.buffer, at, kind, peer, amount, start, end, key, more)
        except struct.error:
            fields = (_cut(peer, _MOST_PEER), _cut(amount, _MOST_AMOUNT))
            numbers = (_cut(key, _MOST_KEY), _cut(more, _MOST_KEY))
            _LAYOUT.pack_into(ring.buffer, at, kind, *fields, start, end, *numbers)
        ring.written += 1

    def begin(self, capacity: int, sample: int) -> None:
        """Write from now on, at most ``capacity`` records, 1 or more."""
        self._ring = _Ring(capacity)
        self.sample = sample
        self.on = True

    def end(self) -> tuple[bytes, int]:
        """Write no more; the records that there are, oldest first, and how many made room for them."""
        self.on = False
        ring, self._ring = self._ring, None
        if ring is None:
            return b"", 0
        if ring.written <= ring.capacity:
            return bytes(ring.buffer[: ring.written * RECORD_BYTES]), 0
        at = ring.written % ring.capacity * RECORD_BYTES
        return bytes(ring.buffer[at:] + ring.buffer[:at]), ring.written - ring.capacity


def _cut(value: int, most: int) -> int:
    return max(0, min(value, most))


def records_of(data: bytes) -> Iterator[Record]:
    """The records that a tape returned; torn ones, and those of a kind that nobody knows, are left out."""
    whole = len(data) - len(data) % RECORD_BYTES
    for kind, peer, amount, start, end, key, more in _LAYOUT.iter_unpack(data[:whole]):
        if (known := _KINDS.get(kind)) is not None and start <= end < float("inf"):
            yield Record(known, peer, amount, start, end, key, more)
