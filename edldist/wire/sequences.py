"""Sequences of different lengths, back to back: rows are tokens, and a byte of each says where samples begin.

What is padding on either side does not travel. The marks go along as one more input, under a name that no
input of a model has::

    sample 0: a b c      tokens  a b c d e
    sample 1: d e        marks   1 2 2 3 0     FIRST = 1, ASKED = 2: labels are wanted of b, c and d
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edldist.errors import WireError

__all__ = ["ASKED", "FIRST", "MARKS", "WHOLE", "ends_of", "labelled_rows"]

MARKS = "edldist.marks"
"""Name of the input that holds the marks: uint8 [rows]."""

FIRST = 1
"""The first token of a sample."""
ASKED = 2
"""Labels of this token are wanted. One at least of each sample."""
WHOLE = 4
"""Beside FIRST: one label of the whole sample is wanted, not of tokens."""


def ends_of(marks: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the samples of some rows begin and end.

    Raises:
        WireError: no sample begins where the rows do.
    """
    starts = np.flatnonzero(marks & FIRST)
    if not len(starts) or starts[0] != 0:
        raise WireError(f"{len(marks)} rows of sequences came that do not begin with the first of a sample")
    return starts, np.append(starts[1:], len(marks))


def labelled_rows(marks: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The row of each label that is wanted, in order: its token's, or the first of its sample."""
    return np.flatnonzero(marks & (WHOLE if len(marks) and marks[0] & WHOLE else ASKED))
