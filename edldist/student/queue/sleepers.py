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
        # Invariant: nobody is both asleep and promised something; _promised_samples is the sum of what is.
        self._asleep: dict[str, int] = {}  # and the samples that it asked for
        self._promised: dict[str, tuple[float, int]] = {}  # until when, and how many samples; oldest first
        self._promised_samples = 0

    def __len__(self) -> int:
        return len(self._asleep)

    def __contains__(self, worker: str) -> bool:
        return worker in self._asleep

    def items(self) -> Iterable[tuple[str, int]]:
        """Sleepers, the longest first, and the samples that each asked for."""
        return self._asleep.items()

    def sleep(self, worker: str, samples: int) -> None:
        """A worker asked for so many samples, and got none."""
        self.forget(worker)
        self._asleep[worker] = samples

    def forget(self, worker: str) -> None:
        """A worker pulls, or is gone."""
        self._asleep.pop(worker, None)
        promise = self._promised.pop(worker, None)
        if promise is not None:
            self._promised_samples -= promise[1]

    def rouse(
        self,
        samples: int,
        at_least: int,
        could_take: Callable[[str], bool],
        now: float,
        most_passed_over: int = sys.maxsize,
    ) -> list[str]:
        """Wake so many sleepers that all that waits will be pulled.

        Args:
            samples: how many wait; those that are promised are subtracted.
            at_least: what each worker takes at least, even if it asks for less.
            could_take: whether something that waits suits a worker.
            most_passed_over: after so many whom nothing suits, the others have to wait for the next call,
                which begins with them: what a call costs grows with what there is to give.
        """
        room = samples - self._promised_by(now)
        woken: list[tuple[str, int]] = []
        passed_over: list[str] = []
        for worker, wish in self._asleep.items():
            if room <= 0 or len(passed_over) >= most_passed_over:
                break
            if could_take(worker):
                woken.append((worker, max(wish, at_least)))
                room -= max(wish, at_least)
            else:
                passed_over.append(worker)
        for worker in passed_over:
            self._asleep[worker] = self._asleep.pop(worker)
        for worker, expected in woken:
            self.wake(worker, expected, now)
        return [worker for worker, _ in woken]

    def wake(self, worker: str, expected: int, now: float) -> None:
        """A worker is woken, and expected to pull so many of the samples that wait."""
        self.forget(worker)
        self._promised[worker] = (now + _PROMISE_S, expected)
        self._promised_samples += expected

    def _promised_by(self, now: float) -> int:
        """How many samples are expected to be pulled by those that were woken."""
        while self._promised:
            worker = next(iter(self._promised))
            if now < self._promised[worker][0]:
                break
            self._promised_samples -= self._promised.pop(worker)[1]
        return self._promised_samples

    def validate(self) -> None:
        """Check the invariants."""
        assert not self._asleep.keys() & self._promised.keys()
        assert self._promised_samples == sum(samples for _, samples in self._promised.values())
