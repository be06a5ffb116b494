"""A member's side of a trace: it records when the coordinator says so, and sends what it has. Pure.

::

    idle --TraceOrder--> recording --its time is up, or the member leaves--> sending --all has left--> idle
                             ^    |
                             +----+ another TraceOrder: what was recorded is dropped, and it begins anew

The coordinator alone orders: whoever else says so is not heard here. What is recorded is bounded by the
order, and the order by what a message may say.
"""

from __future__ import annotations

from collections import deque

import msgspec

from edldist.tracing.recorder import Recorder, clock_name
from edldist.tracing.tape import RECORD_BYTES
from edldist.wire.messages import RECORDS_A_MESSAGE_BYTES, Message, TraceOrder, TraceRecords

__all__ = ["MESSAGES_A_TURN", "Traced"]

MESSAGES_A_TURN = 2
"""So few at once leave with what else is due: a megabyte must not hold up a heartbeat."""
SENDING_TURN_S = 0.005
_CHUNK_BYTES = RECORDS_A_MESSAGE_BYTES - RECORDS_A_MESSAGE_BYTES % RECORD_BYTES


class Traced:
    """Heeds the orders of a coordinator. Owned by the I/O thread.

    Args:
        member: its id.
        recorder: what it records with.
    """

    def __init__(self, member: str, recorder: Recorder) -> None:
        self._member = member
        self._recorder = recorder
        self._order: TraceOrder | None = None
        self._until = float("inf")
        self._received = 0.0
        self._waiting: deque[TraceRecords] = deque()

    def begin(self, order: TraceOrder, now: float) -> None:
        """Record from now on."""
        self._recorder.end()
        self._waiting.clear()
        self._order, self._received, self._until = order, now, now + order.seconds
        self._recorder.begin(order.records, order.sample)

    def next_due_s(self, now: float) -> float:
        """Seconds until something is to be sent."""
        return SENDING_TURN_S if self._waiting else max(0.0, self._until - now)

    def due(self, now: float) -> list[Message]:
        """What is to be sent now."""
        if now >= self._until:
            self._stop()
        count = min(len(self._waiting), MESSAGES_A_TURN)
        return [self._sent(now) for _ in range(count)]

    def leave(self, now: float) -> list[Message]:
        """All that was recorded so far: the member leaves."""
        self._stop()
        return [self._sent(now) for _ in range(len(self._waiting))]

    def _sent(self, now: float) -> TraceRecords:
        return msgspec.structs.replace(self._waiting.popleft(), sent_s=now)

    def _stop(self) -> None:
        if (order := self._order) is None:
            return
        self._order, self._until = None, float("inf")
        base = TraceRecords(
            trace=order.trace,
            member=self._member,
            clock=clock_name(),
            ordered_s=order.ordered_s,
            received_s=self._received,
        )
        names = self._recorder.names
        for recording in self._recorder.end():
            data = recording.records
            for at in range(0, max(1, len(data)), _CHUNK_BYTES):
                part = msgspec.structs.replace(
                    base,
                    thread=recording.thread,
                    records=data[at : at + _CHUNK_BYTES],
                    lost=0 if at else recording.lost,
                    names=names,
                )
                self._waiting.append(part)
        self._waiting.append(msgspec.structs.replace(base, last=True))
