"""The most probable entries of some positions, as an engine tells them: checked, sorted, and their rest.

Shape legend: P positions, E entries that were told of one, K wanted, V entries of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edldist.errors import ModelError

__all__ = ["Told", "TopEntries", "checked"]

_ABOVE = 1e-3
"""How far probabilities may sum up above 1 by rounding."""
_SEEN = 1e-6
"""A rest of less than this cannot be told from the rounding of those that are told."""


@dataclass(frozen=True, slots=True)
class Told:
    """What an engine said, as it came.

    Attributes:
        ids: int64, all positions' entries one after the other.
        log_probs: float64, NaN where there was no number.
        counts: int64 [P], how many entries each position has.
    """

    ids: NDArray[np.int64]
    log_probs: NDArray[np.float64]
    counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TopEntries:
    """The K most probable entries of each position.

    Attributes:
        ids: int64 [P, K], the most probable first.
        log_probs: float32 [P, K]; ``-inf`` for an entry that cannot be.
        log_tail: float32 [P], log of the probability of all others; ``-inf`` for none.
    """

    ids: NDArray[np.int64]
    log_probs: NDArray[np.float32]
    log_tail: NDArray[np.float32]


def checked(told: Told, positions: NDArray[np.int64], kept: int, vocabulary: int) -> TopEntries:
    """Keep the K most probable entries of each position; what else was told is dropped.

    The rest's probability is 1 less the sum of those that are kept. Where that is within rounding, it is
    taken for the most that rounding hides, or what V - K entries of the last one's probability would have, if
    that is less.

    Args:
        positions: int64 [P], for messages.
        kept: K, up to V.
        vocabulary: V.

    Raises:
        ModelError: an entry is missing, no number, given twice, or outside of the vocabulary; or they
            cannot be the most probable ones of any distribution. Says at which position.
    """
    count = len(told.counts)
    if (short := np.flatnonzero(told.counts < kept)).size:
        at = int(short[0])
        raise ModelError(
            f"{int(told.counts[at])} entries came for position {positions[at]}, and {kept} were asked for "
            f"(so at {short.size} of {count} positions)"
        )
    outside = (told.ids < 0) | (told.ids >= vocabulary)
    if outside.any():
        at = int(np.flatnonzero(outside)[0])
        raise ModelError(
            f"id {told.ids[at]} came for position {_position(told, positions, at)}, outside of a vocabulary "
            f"of {vocabulary:,} (setting vocabulary)"
        )
    wrong = np.isnan(told.log_probs) | (told.log_probs > _ABOVE)
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        value = told.log_probs[at]
        raise ModelError(
            f"{'no number (null or NaN)' if np.isnan(value) else format(value, 'g')} came as the "
            f"log-probability of id {told.ids[at]} at position {_position(told, positions, at)}, where a "
            f"finite one is wanted, or -inf (so for {int(wrong.sum())} of {len(told.ids)} entries)"
        )
    widest = int(told.counts.max(initial=kept))
    ids = np.zeros((count, widest), dtype=np.int64)
    log_probs = np.full((count, widest), -np.inf)
    there = np.arange(widest) < told.counts[:, None]
    ids[there] = told.ids
    log_probs[there] = told.log_probs
    # Stable: what was told, however improbable, stays before what was not.
    order = np.argsort(-log_probs, axis=-1, kind="stable")[:, :kept]
    ids, log_probs = np.take_along_axis(ids, order, -1), np.take_along_axis(log_probs, order, -1)
    in_order = np.sort(ids, axis=-1)
    if (again := np.flatnonzero((in_order[:, 1:] == in_order[:, :-1]).any(axis=-1))).size:
        raise ModelError(f"an id came twice for position {positions[again[0]]}")
    probs = np.exp(log_probs)
    sums = probs.sum(axis=-1)
    if (wrong_rows := np.flatnonzero((sums > 1 + _ABOVE) | np.isneginf(log_probs[:, 0]))).size:
        at = int(wrong_rows[0])
        raise ModelError(
            f"what came for position {positions[at]} are no log-probabilities: {kept} of them sum up to "
            f"{sums[at]:.4g}"
        )
    most = (vocabulary - kept) * probs[:, -1]
    if (lacking := np.flatnonzero(1 - sums > most + _ABOVE)).size:
        at = int(lacking[0])
        raise ModelError(
            f"what came for position {positions[at]} is not all: {kept} entries have {sums[at]:.4g} "
            f"together, and the {vocabulary - kept:,} others, none above the last, no more than "
            f"{most[at]:.4g}"
        )
    with np.errstate(divide="ignore"):
        log_tail = np.log(np.minimum(np.maximum(1 - sums, _SEEN), most))
    return TopEntries(ids, log_probs.astype(np.float32), log_tail.astype(np.float32))


def _position(told: Told, positions: NDArray[np.int64], at: int) -> int:
    return int(positions[np.searchsorted(told.counts.cumsum(), at, side="right")])
