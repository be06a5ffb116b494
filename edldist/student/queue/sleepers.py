"""Workers that were told that there is nothing for them, and those of them that were woken. Pure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

__all__ = ["Sleepers"]

_PROMISE_S = 0.1


class Sleepers:
    """Who of one teacher's workers waits to be woken, the longest sleeper first.

    What a woken worker is expected to pull is *promised* to it, so that nobody else is woken for it: until it
    pulls, or for a tenth of a second, because it may have found work elsewhere meanwhile.
    """

    def __init__(self) -> None:
        # Invariant: nobody is both asleep and promised something; _promised_room is the sum of what is.
        self._asleep: dict[str, int] = {}  # and the room that it has
        self._promised: dict[str, tuple[float, int]] = {}  # until when, and how much; oldest first
        self._promised_room = 0

    def __len__(self) -> int:
        return len(self._asleep)

    def __contains__(self, worker: str) -> bool:
        return worker in self._asleep

    def items(self) -> Iterable[tuple[str, int]]:
        """Sleepers, the longest first, and the room that each has."""
        return self._asleep.items()

    def sleep(self, worker: str, room: int) -> None:
        """A worker with room for so much asked, and got nothing."""
        self.forget(worker)
        self._asleep[worker] = room

    def forget(self, worker: str) -> None:
        """A worker pulls, or is gone."""
        self._asleep.pop(worker, None)
        promise = self._promised.pop(worker, None)
        if promise is not None:
            self._promised_room -= promise[1]

    def rouse(
        self,
        cost: int,
        at_least: int,
        could_take: Callable[[str], bool],
        now: float,
        most_passed_over: int = sys.maxsize,
    ) -> list[str]:
        """Wake so many sleepers that all that waits will be pulled.

        Args:
            cost: of all that waits; what is promised is subtracted.
            at_least: what each worker takes at least, even if it has less room.
            could_take: whether something that waits suits a worker.
            most_passed_over: after so many whom nothing suits, the others have to wait for the next call,
                which begins with them: what a call costs grows with what there is to give.
        """
        left = cost - self._promised_by(now)
        woken: list[tuple[str, int]] = []
        passed_over: list[str] = []
        for worker, room in self._asleep.items():
            if left <= 0 or len(passed_over) >= most_passed_over:
                break
            if could_take(worker):
                woken.append((worker, max(room, at_least)))
                left -= max(room, at_least)
            else:
                passed_over.append(worker)
        for worker in passed_over:
            self._asleep[worker] = self._asleep.pop(worker)
        for worker, expected in woken:
            self.wake(worker, expected, now)
        return [worker for worker, _ in woken]

    def wake(self, worker: str, expected: int, now: float) -> None:
        """A worker is woken, and expected to pull so much of what waits."""
        self.forget(worker)
        self._promised[worker] = (now + _PROMISE_S, expected)
        self._promised_room += expected

    def _promised_by(self, now: float) -> int:
        """How much those that were woken are expected to pull."""
        while self._promised:
            worker = next(iter(self._promised))
            if now < self._promised[worker][0]:
                break
            self._promised_room -= self._promised.pop(worker)[1]
        return self._promised_room

    def validate(self) -> None:
        """Check the invariants."""
        assert not self._asleep.keys() & self._promised.keys()
        assert self._promised_room == sum(room for _, room in self._promised.values())
