"""Who orders a trace, who heeds it, and what becomes of what they record: pure."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edldist.coordinator.members.membership import Member
from edldist.coordinator.traces import GRACE_S, Traces
from edldist.errors import WireError
from edldist.tracing.kinds import Kind
from edldist.tracing.recorder import Recorder
from edldist.wire.messages import (
    RECORDS_A_MESSAGE_BYTES,
    Refused,
    Register,
    TraceBegun,
    TraceOrder,
    TraceQuery,
    TraceRecords,
    decode,
    encode,
)
from edldist.wire.traced import Traced
from edldist.wire.transport import Sender

OPERATOR, OTHER = Sender(b"operator"), Sender(b"other")


def members(*names: str) -> dict[str, Member]:
    return {
        name: Member(
            Sender(name.encode()),
            Register(
                id=name,
                role="teacher" if name.startswith("t") else "student",
                process=name,
                info={} if name.startswith("t") else {"rank": 0},
            ),
            0.0,
            0.0,
        )
        for name in names
    }


def ask(traces: Traces, who: Sender = OPERATOR, now: float = 10.0, **query: Any) -> list[Any]:
    return list(traces.ask(who, TraceQuery(**{"seconds": 2.0} | query), members("t1", "s1"), now))


def part(order: TraceOrder, name: str, **more: Any) -> TraceRecords:
    return TraceRecords(trace=order.trace, member=name, **more)


def send(traces: Traces, message: TraceRecords, now: float = 12.0, peer: Sender | None = None) -> list[Any]:
    sender = peer or Sender(message.member.encode())
    return list(traces.records(sender, message, members("t1", "s1"), now))


# --- the coordinator -----------------------------------------------------------------------------------


def test_every_member_is_told_and_what_it_sends_goes_on_with_the_time() -> None:
    traces = Traces("life")
    (who, begun), *orders = ask(traces, sample=7)
    assert who == OPERATOR and isinstance(begun, TraceBegun)
    assert [(each.id, each.role, each.rank) for each in begun.members] == [
        ("t1", "teacher", None),
        ("s1", "student", 0),
    ]
    assert [peer.route for peer, _ in orders] == [b"t1", b"s1"]
    order = orders[0][1]
    assert isinstance(order, TraceOrder) and (order.seconds, order.sample, order.ordered_s) == (2.0, 7, 10.0)
    sent = part(order, "t1", records=b"x" * 40)
    assert send(traces, sent, 12.25) == [(OPERATOR, msgspec.structs.replace(sent, arrived_s=12.25))]


def test_a_second_trace_waits_until_the_first_is_over() -> None:
    traces = Traces("life")
    order = ask(traces)[1][1]
    ((who, refused),) = ask(traces, OTHER, now=11.0)
    assert who == OTHER and isinstance(refused, Refused) and "for 1 s more" in refused.reason
    for name in ("t1", "s1"):
        send(traces, part(order, name, last=True))
    assert isinstance(ask(traces, OTHER, now=12.5)[0][1], TraceBegun)


def test_a_trace_whose_members_never_answer_ends_by_itself() -> None:
    traces = Traces("life")
    order = ask(traces)[1][1]
    assert isinstance(ask(traces, OTHER, now=12.0 + GRACE_S)[0][1], Refused)
    assert isinstance(ask(traces, OTHER, now=12.1 + GRACE_S)[0][1], TraceBegun)
    assert send(traces, part(order, "t1", records=b"late"), now=13.0 + GRACE_S) == []


def test_an_operator_that_hung_up_holds_up_nobody() -> None:
    traces = Traces("life")
    order = ask(traces)[1][1]
    traces.unreachable(OPERATOR)
    assert send(traces, part(order, "t1")) == []
    assert isinstance(ask(traces, OTHER)[0][1], TraceBegun)


def test_a_member_that_cannot_be_reached_is_not_the_operator() -> None:
    traces = Traces("life")
    ask(traces)
    traces.unreachable(Sender(b"t1"))
    assert isinstance(ask(traces, OTHER)[0][1], Refused)


def test_nobody_sends_in_the_name_of_another_nor_more_than_was_asked_for() -> None:
    traces = Traces("life")
    order = ask(traces)[1][1]
    assert send(traces, part(order, "t1"), peer=OTHER) == []
    assert send(traces, TraceRecords(trace="another", member="t1")) == []
    assert send(traces, TraceRecords(trace=order.trace, member="stranger")) == []
    chunk, passed = b"x" * RECORDS_A_MESSAGE_BYTES, 0
    for _ in range(100):
        passed += len(send(traces, part(order, "t1", records=chunk)))
    assert 0 < passed * len(chunk) <= order.records * 40 * 3
    send(traces, part(order, "s1", last=True))
    assert send(traces, part(order, "s1", records=b"more")) == []


def test_a_large_job_records_less_of_each() -> None:
    traces = Traces("life")
    many = members(*(f"t{n}" for n in range(2000)))
    answers = list(traces.ask(OPERATOR, TraceQuery(seconds=1.0), many, 0.0))
    order = answers[1][1]
    assert len(answers) == 2001 and isinstance(order, TraceOrder)
    assert order.records >= 256 and order.records * 40 * 3 * 2000 <= 256 << 20


def test_there_is_nothing_to_trace_without_members() -> None:
    ((_, refused),) = Traces("life").ask(OPERATOR, TraceQuery(seconds=1.0), {}, 0.0)
    assert isinstance(refused, Refused) and "nobody takes part" in refused.reason


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf"), 61.0])
def test_no_message_asks_for_a_time_that_makes_no_sense(seconds: float) -> None:
    with pytest.raises(WireError):
        decode(encode(TraceQuery(seconds=seconds)))


# --- a member ------------------------------------------------------------------------------------------


def ordered(recorder: Recorder, **more: Any) -> tuple[Traced, TraceOrder]:
    traced = Traced("s1", recorder)
    usual = {"trace": "one", "seconds": 2.0, "sample": 1, "records": 30_000, "ordered_s": 5.0}
    order = TraceOrder(**usual | more)
    traced.begin(order, 100.0)
    return traced, order


def test_a_member_records_for_its_time_and_sends_all_of_it_in_parts() -> None:
    recorder = Recorder(lambda: 0.0, ("loop", "I/O"))
    traced, order = ordered(recorder)
    for n in range(30_001):
        recorder["loop"].write(Kind.STEP, 100.0 + n, 100.5 + n, n)
    assert traced.due(101.9) == [] and traced.next_due_s(101.5) == 0.5
    sent: list[TraceRecords] = []
    now = 102.0
    while traced.next_due_s(now) < 1.0:
        some = traced.due(now)
        assert 1 <= len(some) <= 2  # others have to get through
        sent += some  # type: ignore[arg-type]
        now += 0.01
    assert not recorder.on
    assert [(each.thread, each.last) for each in sent] == [
        *([("loop", False)] * 3),
        ("I/O", False),
        ("", True),
    ]
    assert [each.lost for each in sent] == [1, 0, 0, 0, 0]
    assert sum(len(each.records) for each in sent) == 30_000 * 40
    assert all((each.received_s, each.ordered_s) == (100.0, order.ordered_s) for each in sent)
    assert [each.sent_s for each in sent] == pytest.approx([102.0, 102.0, 102.01, 102.01, 102.02])
    for each in sent:
        assert decode(encode(each)) == each


def test_the_largest_part_with_the_longest_names_is_a_message() -> None:
    recorder = Recorder(lambda: 0.0, ("loop",))
    traced, _ = ordered(recorder)
    for n in range(20_000):
        recorder["loop"].write(Kind.STEP, 100.0, 100.5, n)
    for n in range(3_000):
        recorder.number(f"{n:04d}" + "\U0001f600" * 300)
    first = traced.due(102.0)[0]
    assert isinstance(first, TraceRecords) and decode(encode(first)) == first


def test_a_member_that_leaves_sends_what_it_has() -> None:
    recorder = Recorder(lambda: 0.0, ("loop",))
    traced, _ = ordered(recorder)
    recorder["loop"].write(Kind.STEP, 100.0, 100.5, 1)
    first, last = traced.leave(100.7)
    assert isinstance(first, TraceRecords) and len(first.records) == 40
    assert isinstance(last, TraceRecords) and last.last
    assert traced.leave(100.8) == [] and traced.next_due_s(1e9) == float("inf")


def test_another_order_begins_anew() -> None:
    recorder = Recorder(lambda: 0.0, ("loop",))
    traced, order = ordered(recorder)
    recorder["loop"].write(Kind.STEP, 100.0, 100.5, 1)
    traced.begin(msgspec.structs.replace(order, trace="two"), 101.0)
    assert traced.due(102.5) == []
    sent = traced.due(103.0)
    assert [(each.trace, each.records) for each in sent if isinstance(each, TraceRecords)] == [
        ("two", b""),
        ("two", b""),
    ]
