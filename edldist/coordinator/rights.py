"""What each role may say to a coordinator. Pure."""

from __future__ import annotations

from edldist.keys.pair import OPERATOR, STUDENT, TEACHER, a_role
from edldist.wire.events import reporters
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
_MAY: dict[type[Message], tuple[frozenset[str], str]] = {
    Register: (_MEMBERS, "take part"),
    Heartbeat: (_MEMBERS, "take part"),
    Goodbye: (_MEMBERS, "take part"),
    TraceRecords: (_MEMBERS, "take part in a trace"),
    Vouch: (frozenset({TEACHER}), "say that a worker lives"),
    NodeReport: (frozenset({STUDENT}), "meet student nodes"),
    Report: (frozenset({STUDENT}), "report figures"),
    HistoryQuery: (frozenset({STUDENT, OPERATOR}), "ask for the course of the run"),
    StatusQuery: (frozenset({STUDENT, OPERATOR}), "ask for the state of the job"),
    NodeQuery: (frozenset({STUDENT, OPERATOR}), "ask who of a node is here"),
    Scale: (frozenset({OPERATOR}), "scale"),
    TraceQuery: (frozenset({OPERATOR}), "trace"),
}
"""Who may say what, and what that is in words. Of events each kind has roles of its own (``wire.events``)."""


def forbidden(role: str, message: Message) -> str:
    """Why a role may not say this; empty if it may.

    Args:
        role: that the sender's key is for; empty where nobody has keys, and everybody may say anything.
    """
    if not role:
        return ""
    if isinstance(message, Event):
        allowed, what = reporters(message.event), f"report {message.event}"
        if not allowed:
            return ""  # whose event it is nobody knows: that is garbage, whoever sends it
    else:
        allowed, what = _MAY.get(type(message), (_MEMBERS, f"say {type(message).__name__}"))
    if role not in allowed:
        others = " or ".join(f"{a_role(each)}'s" for each in sorted(allowed))
        return f"{a_role(role)}'s key may not {what}: that takes {others}"
    if isinstance(message, Register) and message.role != role:
        other = a_role(message.role)
        return f"{a_role(role)}'s key cannot register {other}: that takes {other}'s"
    return ""
