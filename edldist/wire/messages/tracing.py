"""Messages of a trace: an operator asks, the coordinator orders, members record and send what they have."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edldist.wire.messages.fields import Count, MessagePart, Name

__all__ = [
    "LONGEST_TRACE_S",
    "MOST_SAMPLE",
    "MOST_TRACED",
    "RECORDS_A_MESSAGE_BYTES",
    "TraceBegun",
    "TraceOrder",
    "TraceQuery",
    "TraceRecords",
    "TracedMember",
]

LONGEST_TRACE_S = 60.0
MOST_SAMPLE = 1_000_000
MOST_TRACED = 10_000
"""Members of one trace."""
RECORDS_A_MESSAGE_BYTES = 1 << 19

_TraceSeconds = Annotated[float, msgspec.Meta(gt=0, le=LONGEST_TRACE_S)]
_Sample = Annotated[int, msgspec.Meta(ge=1, le=MOST_SAMPLE)]
_Instant = Annotated[float, msgspec.Meta(ge=0, le=1e12)]


class TraceQuery(MessagePart, frozen=True, tag="trace_query"):
    """An operator asks for a trace of so many seconds, and of one task in ``sample``.

    Answered by ``TraceBegun`` and then, when the time is up, by the ``TraceRecords`` of each member as they
    come; or by ``Refused`` with the reason.
    """

    seconds: _TraceSeconds
    sample: _Sample = 1


class TracedMember(MessagePart, frozen=True, array_like=True):
    """A member that was told to record; ``group`` is as in ``Register``, ``rank`` a student's."""

    id: Name
    role: Name
    group: Name
    host: Name
    pid: Count
    rank: Count | None


class TraceBegun(MessagePart, frozen=True, tag="trace_begun"):
    """Members were told to record; ``clock`` names the coordinator's, as in ``TraceRecords``."""

    trace: Name
    clock: Name
    members: Annotated[list[TracedMember], msgspec.Meta(max_length=MOST_TRACED)]


class TraceOrder(MessagePart, frozen=True, tag="trace_order"):
    """The coordinator tells a member to record for so long, at most ``records`` of each thread.

    ``ordered_s`` is the coordinator's monotonic clock when it said so.
    """

    trace: Name
    seconds: _TraceSeconds
    sample: _Sample
    records: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]
    ordered_s: _Instant


class TraceRecords(MessagePart, frozen=True, tag="trace_records"):
    """Some of what a thread of a member has recorded (``edldist.tracing.tape``).

    Attributes:
        trace: the one that it belongs to.
        member: who recorded it.
        thread: which of its threads; empty where it only says that there is no more.
        records: as bytes; those of a thread follow each other.
        lost: records of this thread that later ones took the place of.
        names: what records call peers, by number.
        last: nothing more comes of this member.
        clock: what processes have in common whose monotonic clocks are one.
        ordered_s: of the order, by the coordinator's clock.
        received_s, sent_s: when the order came and this left, by the member's clock.
        arrived_s: when this came, by the coordinator's clock; the coordinator says so.
    """

    trace: Name
    member: Name
    thread: Name = ""
    records: Annotated[bytes, msgspec.Meta(max_length=RECORDS_A_MESSAGE_BYTES)] = b""
    lost: Count = 0
    names: Annotated[dict[Count, Name], msgspec.Meta(max_length=1 << 10)] = {}
    last: bool = False
    clock: Name = ""
    ordered_s: _Instant = 0.0
    received_s: _Instant = 0.0
    sent_s: _Instant = 0.0
    arrived_s: _Instant = 0.0
