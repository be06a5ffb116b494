"""The trace that an operator asked for: who was told to record, and who has answered. Pure.

The coordinator keeps no record of it: what members send goes on to the operator as it comes. One trace at a
time, and whoever joins meanwhile is not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from edldist.coordinator.members.membership import Member
from edldist.tracing.recorder import clock_name
from edldist.tracing.tape import MOST_RECORDS, RECORD_BYTES
from edldist.wire.messages import (
    MOST_TRACED,
    Message,
    Refused,
    TraceBegun,
    TracedMember,
    TraceOrder,
    TraceQuery,
    TraceRecords,
)
from edldist.wire.transport import Sender

__all__ = ["GRACE_S", "Traces"]

GRACE_S = 10.0
"""How long after its time is up a trace waits for members that have not sent what they recorded."""
MOST_BYTES = 256 << 20
"""Of all records of a trace: so much at the most is sent at once, and lies in the operator's memory."""
_THREADS = 3
_LEAST_RECORDS = 256


@dataclass
class _Trace:
    """One that is under way; ``allowed`` are the bytes that each member who has not answered may send."""

    name: str
    operator: Sender
    until: float
    allowed: dict[str, int] = field(default_factory=dict)


class Traces:
    """At most one trace at a time. Owned by the coordinator's main thread.

    Args:
        incarnation: of the coordinator: it is in the name of each trace.
    """

    def __init__(self, incarnation: str) -> None:
        self._incarnation = incarnation
        self._count = 0
        self._trace: _Trace | None = None

    def ask(
        self, operator: Sender, query: TraceQuery, members: Mapping[str, Member], now: float
    ) -> Iterable[tuple[Sender, Message]]:
        """An operator asks for a trace: what is to be sent to whom."""
        if (under_way := self._under_way(now)) is not None and under_way.operator != operator:
            left_s = under_way.until - GRACE_S - now
            when = f"for {left_s:.0f} s more" if left_s > 0 else "and its records are on their way"
            reason = f"another trace is under way, {when}: ask again then"
            return [(operator, Refused(reason=reason))]
        if not members:
            reason = "nobody takes part in the job now: there is nothing to trace. Start its roles first"
            return [(operator, Refused(reason=reason))]
        self._count += 1
        trace = _Trace(f"{self._incarnation[:12]}-{self._count}", operator, now + query.seconds + GRACE_S)
        chosen = list(members.values())[:MOST_TRACED]
        fair = MOST_BYTES // RECORD_BYTES // _THREADS // len(chosen)
        records = max(_LEAST_RECORDS, min(MOST_RECORDS, fair))
        order = TraceOrder(
            trace=trace.name, seconds=query.seconds, sample=query.sample, records=records, ordered_s=now
        )
        trace.allowed = {member.register.id: records * RECORD_BYTES * _THREADS for member in chosen}
        self._trace = trace
        begun = TraceBegun(trace=trace.name, clock=clock_name(), members=[_told(each) for each in chosen])
        return [(operator, begun), *((member.peer, order) for member in chosen)]

    def records(
        self, peer: Sender, message: TraceRecords, members: Mapping[str, Member], now: float
    ) -> Iterable[tuple[Sender, Message]]:
        """A member sends what it recorded: it goes on to the operator, if anybody waits for it."""
        trace, member = self._under_way(now), members.get(message.member)
        if trace is None or message.trace != trace.name or member is None or member.peer != peer:
            return []
        left = trace.allowed.get(message.member, -1) - len(message.records)
        if left < 0:
            return []
        trace.allowed[message.member] = left
        if message.last:
            del trace.allowed[message.member]
            if not trace.allowed:
                self._trace = None
        return [(trace.operator, msgspec.structs.replace(message, arrived_s=now))]

    def unreachable(self, peer: Sender) -> None:
        """The operator hung up: nobody waits any more."""
        if self._trace is not None and self._trace.operator == peer:
            self._trace = None

    def _under_way(self, now: float) -> _Trace | None:
        if self._trace is not None and now > self._trace.until:
            self._trace = None
        return self._trace


def _told(member: Member) -> TracedMember:
    register = member.register
    rank = register.info.get("rank")
    return TracedMember(
        id=register.id,
        role=register.role,
        group=register.group,
        host=register.host,
        pid=register.pid,
        rank=rank if isinstance(rank, int) and rank >= 0 else None,
    )
