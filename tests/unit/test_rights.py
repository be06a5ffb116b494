"""What a key is for decides what may be said with it."""

from __future__ import annotations

import pytest

from edldist.coordinator.rights import forbidden
from edldist.keys.pair import ROLES, a_role
from edldist.wire.messages import (
    Ack,
    Event,
    Goodbye,
    Heartbeat,
    Message,
    NodeQuery,
    Register,
    Report,
    Scale,
    StatusQuery,
    TraceQuery,
    TraceRecords,
    Vouch,
)

REGISTER = {"id": "x", "process": "p", "host": "h", "pid": 1, "wall_s": 0.0}
CASES: list[tuple[Message, set[str]]] = [
    (Register(**REGISTER, role="teacher", group="big"), {"teacher"}),
    (Register(**REGISTER, role="student", address="tcp://h:1", teachers=["big"]), {"student"}),
    (Heartbeat(id="x"), {"teacher", "student"}),
    (Goodbye(id="x", reason="done"), {"teacher", "student"}),
    (Vouch(id="x", process="p"), {"teacher"}),
    (Report(reporter="r", seq=1, rank=0, t=0.0, values={}), {"student"}),
    (Event(event="clock_skew", t=0.0, fields={}), {"student", "teacher"}),
    (Event(event="node_ended", t=0.0, fields={}), {"student"}),
    (Event(event="checkpoint_saved", t=0.0, fields={}), {"student"}),
    (Event(event="task_poisoned", t=0.0, fields={}), {"student"}),
    (Event(event="remark", t=0.0, fields={}), {"student", "operator"}),
    (StatusQuery(), {"student", "operator"}),
    (NodeQuery(processes=[]), {"student", "operator"}),
    (Scale(group="big", workers=1), {"operator"}),
    (TraceQuery(seconds=1.0), {"operator"}),
    (TraceRecords(trace="t", member="x"), {"teacher", "student"}),
]


@pytest.mark.parametrize(("message", "allowed"), CASES, ids=lambda value: type(value).__name__)
def test_each_role_says_what_is_its_own(message: Message, allowed: set[str]) -> None:
    for role in ROLES:
        reason = forbidden(role, message)
        assert (reason == "") == (role in allowed), (role, reason)
        assert not reason or (f"{a_role(role)}'s key may not" in reason or "cannot register" in reason)
        assert "a operator" not in reason
    assert forbidden("", message) == ""


def test_what_is_none_of_a_coordinators_is_a_members_business() -> None:
    assert forbidden("teacher", Ack(seq=1)) == "" and "operator" in forbidden("operator", Ack(seq=1))


def test_what_no_member_may_report_is_garbage_and_no_matter_of_keys() -> None:
    for role in ROLES:
        assert forbidden(role, Event(event="teacher_lost", t=0.0, fields={})) == ""


def test_a_refusal_says_in_words_what_it_takes() -> None:
    assert forbidden("teacher", StatusQuery()) == (
        "a teacher's key may not ask for the state of the job: that takes an operator's or a student's"
    )
    assert forbidden("operator", Heartbeat(id="x")) == (
        "an operator's key may not take part: that takes a student's or a teacher's"
    )
