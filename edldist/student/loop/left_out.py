"""Batches that the training loop does not get, because it asked not to have them again."""

from __future__ import annotations

__all__ = ["LeftOut", "Start"]

Start = tuple[int, int]
"""Where a batch begins: its epoch, and how many samples of that were consumed before it."""


class LeftOut:
    """Which batches are left out, by where they begin, however often the loop comes by. Pure.

    A data loader that is put back to an earlier position reads the same batches again, so a batch that was
    left out is met again, left out again, and counted only once.
    """

    def __init__(self) -> None:
        self._wanted: dict[Start, int] = {}
        self._met: set[Start] = set()
        self._following = 0  # that the range of which the loop has had the first ones still has

    def add(self, start: Start, batches: int) -> None:
        """Leave out the batch that begins there, and those that follow it, ``batches`` in all."""
        self._wanted[start] = max(batches, self._wanted.get(start, 0))

    def moved(self) -> None:
        """The next batch does not follow the one before."""
        self._following = 0

    def takes(self, start: Start) -> bool:
        """Whether the next batch, which begins there, is left out. To be asked once for each batch."""
        more = max(self._following, self._wanted.get(start, 0))
        self._following = max(0, more - 1)
        return more > 0

    def is_new(self, start: Start) -> bool:
        """Whether the batch that begins there, which is left out, has not been met before."""
        new = start not in self._met
        self._met.add(start)
        return new
