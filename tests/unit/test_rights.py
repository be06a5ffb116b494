"""What a key is for decides what may be said with it."""

from __future__ import annotations

import pytest

from edldist.coordinator.rights import forbidden
from edldist.keys.pair import ROLES
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
    (Event(event="e", t=0.0, fields={}), {"student", "teacher", "operator"}),
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
        assert not reason or f"a key of a {role}" in reason
    assert forbidden("", message) == ""


def test_what_is_none_of_a_coordinators_is_a_members_business() -> None:
    assert forbidden("teacher", Ack(seq=1)) == "" and "operator" in forbidden("operator", Ack(seq=1))
