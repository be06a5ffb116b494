"""What each role may say to a coordinator. Pure."""

from __future__ import annotations

from edldist.keys.pair import OPERATOR, STUDENT, TEACHER
from edldist.wire.messages import (
    Event,
    Goodbye,
    Heartbeat,
    HistoryQuery,
    Message,
    NodeQuery,
    NodeReport,
    Register,
    Report,
    Scale,
    StatusQuery,
    TraceQuery,
    TraceRecords,
    Vouch,
)

__all__ = ["forbidden"]

_MEMBERS = frozenset({TEACHER, STUDENT})
_MAY: dict[type[Message], frozenset[str]] = {
    Register: _MEMBERS,
    Heartbeat: _MEMBERS,
    Goodbye: _MEMBERS,
    Vouch: frozenset({TEACHER}),
    NodeReport: frozenset({STUDENT}),
    Report: frozenset({STUDENT}),
    Event: frozenset({STUDENT, TEACHER, OPERATOR}),
    HistoryQuery: frozenset({STUDENT, OPERATOR}),
    StatusQuery: frozenset({STUDENT, OPERATOR}),
    NodeQuery: frozenset({STUDENT, OPERATOR}),
    Scale: frozenset({OPERATOR}),
    TraceQuery: frozenset({OPERATOR}),
    TraceRecords: _MEMBERS,
}


def forbidden(role: str, message: Message) -> str:
    """Why a role may not say this; empty if it may.

    Args:
        role: that the sender's key is for; empty where nobody has keys, and everybody may say anything.
    """
    if not role:
        return ""
    kind = type(message).__name__
    if role not in _MAY.get(type(message), _MEMBERS):
        others = " or ".join(sorted(_MAY.get(type(message), _MEMBERS)))
        return f"a key of a {role} is none for a {kind}: use one of a {others}"
    if isinstance(message, Register) and message.role != role:
        return f"a key of a {role} cannot register a {message.role}: use a {message.role}'s"
    return ""
