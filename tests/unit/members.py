"""Members of a coordinator for tests, and what its membership answers them."""

from __future__ import annotations

from typing import Any

from edldist.coordinator.members.membership import Action, Membership, Record, Send
from edldist.wire.messages import (
    Heartbeat,
    Register,
)
from tests.greetings import FINGERPRINT

WALL = 1_700_000_000.0
S1 = {"id": "s1", "process": "p8", "host": "a", "pid": 8}


def make(now: float = 0.0) -> Membership:
    return Membership("inc", heartbeat_interval_s=1.0, heartbeat_ttl_s=3.0, now=now)


def teacher(member_id: str = "t1", **fields: Any) -> Register:
    base = {"id": member_id, "role": "teacher", "group": "big", "process": "p7", "host": "a", "pid": 7}
    return Register(**base | {"fingerprint": FINGERPRINT} | fields)


def student(member_id: str = "s1", **fields: Any) -> Register:
    base = {
        "id": member_id,
        "role": "student",
        "address": "tcp://a:1",
        "teachers": ["big"],
        "process": "p8",
        "host": "a",
        "pid": 8,
    }
    return Register(**base | fields)


def events(actions: list[Action]) -> list[tuple[str, dict[str, Any]]]:
    return [(a.event.event, a.event.fields) for a in actions if isinstance(a, Record)]


def sent(actions: list[Action]) -> list[tuple[bytes, Any]]:
    return [(a.peer, a.message) for a in actions if isinstance(a, Send)]


def live(members: Membership, until: float, *ids: str, since: float = 0.0) -> list[Action]:
    """Heartbeats of some members and ticks, every half second."""
    actions: list[Action] = []
    now = since
    while now < until:
        now += 0.5
        for member_id in ids:
            actions += members.heartbeat(member_id.encode(), Heartbeat(id=member_id), now)
        actions += members.tick(now, WALL + now)
    return actions
