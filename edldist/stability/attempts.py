"""Which batches are left out, and how far back a run goes, spike after spike."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

__all__ = ["Attempts", "Retreat", "Start"]

Start = tuple[int, int]
"""Where a batch begins (``DistillLoader.start``)."""


class Retreat(NamedTuple):
    """What is done about a spike.

    Attributes:
        number: of rollbacks in a row, this one counted.
        left_out: where ranges of batches begin, and how many batches each has.
        at_most: the step of the latest checkpoint that knows none of these batches.
    """

    number: int
    left_out: list[tuple[Start, int]]
    at_most: int


class Attempts:
    """Decides what to leave out. Pure.

    What shows a spike need not be what made it: a batch may have spoiled the model that shows it at the next
    one, and what is wrong with the data may be wrong in many batches. So the first time the batch that shows
    it is left out alone, and each further time in a row more around it: 1 before and 1 behind, then 3, 7 and
    so on (compare the 200 to 500 batches of Chowdhery et al., "PaLM", 2022, section 5.1). The checkpoint has
    to be one from before all of them.

    A row ends when the loop has come ``calm`` good steps beyond where it was at the last spike.

    Args:
        most: rollbacks in a row.
        calm: steps.
    """

    def __init__(self, most: int, calm: int) -> None:
        self._most = most
        self._calm = calm
        self._taken: deque[tuple[int, Start]] = deque(maxlen=1 << (most - 1))
        self._in_a_row = 0
        self._calm_at = 0

    @property
    def exhausted(self) -> bool:
        """Whether there have been as many in a row as may be."""
        return self._in_a_row >= self._most

    def good(self, step: int, start: Start) -> None:
        """The batch that begins there is fine, and was taken after ``step`` complete steps."""
        self._taken.append((step, start))
        if self._in_a_row and step >= self._calm_at:
            self._in_a_row = 0

    def spike(self, step: int, start: Start) -> Retreat:
        """The batch that begins there shows a spike after ``step`` complete steps; an attempt is left."""
        around = (1 << self._in_a_row) - 1
        self._in_a_row += 1
        self._calm_at = step + self._calm
        before = list(self._taken)[len(self._taken) - around :] if around else []
        at_most = min([step, *(taken for taken, _ in before)])
        return Retreat(
            self._in_a_row, [*((earlier, 1) for _, earlier in before), (start, 1 + around)], at_most
        )

    def back_at(self, step: int) -> None:
        """The run goes on from ``step`` complete steps: what came later was not taken."""
        while self._taken and self._taken[-1][0] >= step:
            self._taken.pop()
