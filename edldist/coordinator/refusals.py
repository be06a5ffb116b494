"""Whom the coordinator would not have, and why: for those who wonder where a worker is. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edldist.wire.messages import Register

__all__ = ["Refusal", "Refusals"]

MOST = 64


@dataclass(frozen=True)
class Refusal:
    """A registration that was not taken.

    Attributes:
        reason: as its sender was told.
        at: monotonic seconds.
    """

    register: Register
    reason: str
    at: float


class Refusals:
    """The last ``MOST`` of them, one for each id, until somebody of that id is let in.

    Owned by the membership; nothing survives a restart. Who only has to wait, since another process holds its
    id, is not in here.
    """

    def __init__(self) -> None:
        # Invariant: who was refused last comes last.
        self._by_id: dict[str, Refusal] = {}

    def __iter__(self) -> Iterator[Refusal]:
        return iter(self._by_id.values())

    def add(self, message: Register, reason: str, now: float) -> None:
        """A registration was not taken."""
        self._by_id.pop(message.id, None)
        self._by_id[message.id] = Refusal(message, reason, now)
        if len(self._by_id) > MOST:
            del self._by_id[next(iter(self._by_id))]

    def let_in(self, member_id: str) -> None:
        """Somebody of that id is a member now."""
        self._by_id.pop(member_id, None)
