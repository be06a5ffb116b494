"""One worker's labels in a store: put there as they come, and taken back if it proves to be wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edldist.store.sample_key import KEY_BYTES, Keys
from edldist.store.shelf import Shelf
from edldist.student.batch.batch import OpenBatch
from edldist.student.batch.label_rows import LabelRows
from edldist.student.queue.outcomes import Grant

__all__ = ["MOST_REMEMBERED", "WorkerLabels"]

MOST_REMEMBERED = 1 << 19
"""Samples of a worker that can be taken back, the latest ones: 16 to 32 MiB of keys."""

Put = Callable[[LabelRows, Sequence[tuple[Grant, OpenBatch, int]]], Keys | None]


class WorkerLabels:
    """The labels of one worker on the shelf of its group. Owned by the I/O thread.

    Which samples it has labelled is remembered for as long as it is here: what a worker said that is put
    aside (``Comparing``) nobody is to learn from again. One that has gone is asked no more, so its labels
    stay.

    Args:
        shelf: of its group.
        put: puts labels there, and says under which keys.
        remembers: whether it may be put aside at all.
    """

    def __init__(self, shelf: Shelf, put: Put, remembers: bool) -> None:
        self._shelf = shelf
        self._put = put
        self._remembers = remembers
        self._keys = bytearray()
        self._agreed = 0  # of the bytes before this it is known that they are of labels like the others'

    def __call__(self, rows: LabelRows, placed: Sequence[tuple[Grant, OpenBatch, int]]) -> None:
        """Labels of it came, and were placed."""
        keys = self._put(rows, placed)
        if keys is None or not self._remembers:
            return
        self._keys += keys.tobytes()
        over = len(self._keys) - KEY_BYTES * MOST_REMEMBERED
        if over > KEY_BYTES * MOST_REMEMBERED:
            del self._keys[:over]
            self._agreed = max(0, self._agreed - over)

    def agreed(self) -> None:
        """It answers like those that label."""
        self._agreed = len(self._keys)

    def withdraw(self, everything: bool) -> int:
        """Take its labels off the shelf.

        Args:
            everything: all that is remembered, or what it labelled since it last ``agreed``.

        Returns:
            Of how many samples.
        """
        wrong = bytes(self._keys[0 if everything else self._agreed :])
        self._keys.clear()
        self._agreed = 0
        if wrong:
            self._shelf.withdraw(np.frombuffer(wrong, np.uint8).reshape(-1, KEY_BYTES))
        return len(wrong) // KEY_BYTES
