"""Workers that are well, but not what this student wants: when is it the student that cannot go on?

A worker of another codec than ``DistillLoader(codec=...)`` says, or of another model than the one of the
checkpoint, is refused and stays, for other students. This student waits a little for one that suits it, in
case its group is just being replaced. All workers of a group are alike (the coordinator sees to that), so one
that has stayed for ``PATIENCE_S`` while none that suits has come speaks for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from edldist.wire.messages import Refused
from edldist.wire.transport import Sender

__all__ = ["PATIENCE_S", "Unsuited"]

PATIENCE_S = 5.0
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class _Refusal:
    teacher: str
    refused: Refused
    since: float


class Unsuited:
    """The workers that one student refused for what it wants. Pure; owned by the I/O thread."""

    def __init__(self) -> None:
        # Invariant: a worker in here is not taken, and stays whatever this student says.
        self._refusals: dict[Sender, _Refusal] = {}
        self._next_look = 0.0

    def greeted(self, peer: Sender) -> None:
        """Somebody at this address greets, anew perhaps."""
        self._refusals.pop(peer, None)

    def refused(self, peer: Sender, teacher: str, refused: Refused, now: float) -> None:
        """A worker of a group that is wanted was refused."""
        if not refused.incompatible:
            self._refusals[peer] = _Refusal(teacher, refused, now)

    def verdict(
        self, served_by: Collection[str], now: float, reach: Callable[[Sender, Refused], bool]
    ) -> str | None:
        """Why this student cannot go on; empty if it can, None if it is not time for another look.

        Args:
            served_by: the groups of which a worker is taken.
            reach: sends a refusal once more; whether somebody is still connected there.
        """
        if now < self._next_look:
            return None
        self._next_look = now + _LOOK_S
        for peer, refusal in list(self._refusals.items()):
            if refusal.teacher in served_by or now - refusal.since < PATIENCE_S:
                continue
            if not reach(peer, refusal.refused):
                del self._refusals[peer]
                continue
            others = sum(each.teacher == refusal.teacher for each in self._refusals.values()) - 1
            more = f" So are {others} others that are here." if others else ""
            return (
                f"teacher {refusal.teacher!r} has no worker that this student can take, and those that are "
                f"here go on without it: {refusal.refused.reason}.{more}"
            )
        return ""
