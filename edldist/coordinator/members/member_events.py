"""What is recorded of members that come, are refused, and go. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from edldist.wire.messages import Event, Register, Scalar

__all__ = ["joined", "left", "lost", "refused", "rejoins"]


def rejoins(message: Register) -> bool:
    """Whether who registers was a member before, of this coordinator or of another one."""
    return bool(message.links) or message.info.get("rejoin") is True


def joined(message: Register, wall: float) -> Event:
    """A member is here."""
    fields: dict[str, Scalar]
    if message.role == "teacher":
        fields = {"id": message.id, "name": message.group, "host": message.host, "pid": message.pid}
        if (device := message.info.get("device")) is not None:
            fields["device"] = device
    else:
        fields = {"id": message.id, "rank": message.info.get("rank"), "host": message.host}
        if message.high_watermark:
            fields |= {"low_watermark": message.low_watermark, "high_watermark": message.high_watermark}
    if rejoins(message):
        fields["rejoined"] = True
    return Event(event=f"{message.role}_joined", t=wall, fields=fields, job=message.job)


def refused(message: Register, reason: str, wall: float) -> Event:
    """A worker does not belong to the group that it names."""
    fields: dict[str, Scalar] = {
        "id": message.id,
        "name": message.group,
        "host": message.host,
        "reason": reason,
    }
    return Event(event="teacher_refused", t=wall, fields=fields)


def left(register: Register, stats: Mapping[str, Scalar], reason: str, wall: float) -> Event:
    """A member has gone on purpose, or another has its place."""
    fields = {**_identity(register, stats), "reason": reason}
    return Event(event=f"{register.role}_left", t=wall, fields=fields, job=register.job)


def lost(register: Register, stats: Mapping[str, Scalar], silent_s: float, wall: float) -> Event:
    """A member has been silent for too long."""
    fields = {**_identity(register, stats), "silent_s": round(silent_s, 3)}
    return Event(event=f"{register.role}_lost", t=wall, fields=fields, job=register.job)


def _identity(register: Register, stats: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """What names a member in an event; a student's last figures too, they are its account."""
    if register.role == "teacher":
        return {"id": register.id, "name": register.group}
    figures = {key: value for key, value in stats.items() if isinstance(value, int | float)}
    return {
        **figures,
        "id": register.id,
        "rank": register.info.get("rank"),
        "process": register.process,
        "host": register.host,
        "pid": register.pid,
    }
