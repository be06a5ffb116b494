"""Whether samples come again as they were, so that a store finds them in one epoch after the other. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Fruitless", "Recurrence"]

_MOST_LOOKS = 3
_MOST_KEYS = 256
_EACH = 8
"""Keys of each batch that are remembered, of the first batches of an epoch."""


class Fruitless(NamedTuple):
    """An epoch that found nothing of what the one before had asked for.

    Attributes:
        epoch: which one.
        samples: how many it has looked up in vain, as many as the one before had.
        keys: some of those of the one before. That was in vain only if labels of these are still kept.
    """

    epoch: int
    samples: int
    keys: list[bytes]


class _Epoch:
    """What was looked up of an epoch."""

    __slots__ = ("comes_again", "found", "keys", "number", "samples", "whole")

    def __init__(self, number: int, whole: bool) -> None:
        self.number = number
        self.whole = whole  # whether it was read from its start
        self.samples = self.found = 0
        self.keys: set[bytes] = set()
        self.comes_again = False  # a sample of the one before, as it was


class Recurrence:
    """Watches what a store has of the samples of each epoch, in the order in which they are read.

    ::

        in an epoch behind the first a sample is not found  -> look closer: once an epoch, three times in all
        an epoch has looked up as many samples as the one
        before it, found none, and none of these came again -> fruitless: told once an epoch

    That a sample is not found may have many reasons: labels that are on their way, dropped, evicted, or
    another rank's. So it is only a reason to look closer, and what is seen then decides. Knows no clock, no
    tensors and no store. Owned by the training thread.
    """

    def __init__(self) -> None:
        self._former: _Epoch | None = None
        self._current: _Epoch | None = None
        self._looks = 0
        self._looked_in = -1
        self._told_of = -1

    def looked_up(
        self, epoch: int, samples: int, found: int, keys: Sequence[bytes], inside: bool = False
    ) -> Fruitless | None:
        """A batch was looked up.

        Args:
            epoch: whose batch it is.
            samples, found: how many it has, and of how many there are labels.
            keys: of its samples.
            inside: whether reading began in the middle of the epoch.
        """
        current = self._current
        if current is None or current.number != epoch:
            self._former = current if current is not None and current.number == epoch - 1 else None
            current = self._current = _Epoch(epoch, not inside)
        current.samples += samples
        current.found += found
        if len(current.keys) < _MOST_KEYS:
            current.keys.update(keys[:_EACH])
        former = self._former
        if former is None or current.found or current.comes_again or not (former.whole and current.whole):
            return None
        current.comes_again = not former.keys.isdisjoint(keys)
        if current.comes_again or current.samples < former.samples or self._told_of == epoch:
            return None
        self._told_of = epoch
        return Fruitless(epoch, current.samples, sorted(former.keys))

    def look_closer(self, epoch: int, missed: int) -> bool:
        """Whether the data set is to be looked at, as so many samples of an epoch's batch were not found.

        It counts as done.
        """
        if not (missed and epoch) or self._looks >= _MOST_LOOKS or self._looked_in == epoch:
            return False
        self._looks += 1
        self._looked_in = epoch
        return True
