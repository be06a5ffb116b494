"""Whom the coordinator would not have, and why: for those who wonder where a worker is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edldist.wire.messages import Happening, Register

__all__ = ["Refusal", "Refusals"]

MOST = 64
RECALLED_S = 3600.0
"""Who was refused longer ago by a former coordinator is of an earlier day, and most likely gone."""


@dataclass(frozen=True)
class Refusal:
    """A registration that was not taken.

    Attributes:
        id, role, group, host: of who was refused, as in ``Register``.
        reason: as its sender was told.
        at: monotonic seconds.
    """

    id: str
    role: str
    group: str
    host: str
    reason: str
    at: float


class Refusals:
    """The last ``MOST`` of them, one for each id, until somebody of that id is let in.

    Owned by the membership. Of those of a former coordinator it knows what the course of the run tells
    (``recall``): workers that were not like their group. Who only has to wait, since another process holds
    its id, is not in here.
    """

    def __init__(self) -> None:
        # Invariant: who was refused last comes last.
        self._by_id: dict[str, Refusal] = {}

    def __iter__(self) -> Iterator[Refusal]:
        return iter(self._by_id.values())

    def recall(self, refused: Iterable[Happening], now: float, wall: float) -> None:
        """Know of those whom a former coordinator refused.

        Args:
            refused: what happened to them, the earliest first.
            now: monotonic seconds.
            wall: unix seconds at that moment.
        """
        for each in refused:
            ago_s = max(0.0, wall - each.t)
            if ago_s > RECALLED_S:
                continue
            group, host, reason = (str(each.fields.get(name, "")) for name in ("name", "host", "reason"))
            self._add(Refusal(each.id, "teacher", group, host, reason, now - ago_s))

    def add(self, message: Register, reason: str, now: float) -> None:
        """A registration was not taken."""
        self._add(Refusal(message.id, message.role, message.group, message.host, reason, now))

    def let_in(self, member_id: str) -> None:
        """Somebody of that id is a member now."""
        self._by_id.pop(member_id, None)

    def _add(self, refusal: Refusal) -> None:
        self._by_id.pop(refusal.id, None)
        self._by_id[refusal.id] = refusal
        if len(self._by_id) > MOST:
            del self._by_id[next(iter(self._by_id))]
