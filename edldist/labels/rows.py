"""Rows of logits, a few at a time: the largest of them, their softened weights, and draws from these.

Shape legend: R rows, V entries, S places in a block, B blocks.

A vocabulary is read a few times, and each time from far away unless the rows at hand fit a cache. So rows are
copied, some at a time, into a scratch of ``float32`` (``float64`` for such logits), where they are worked on
in place. There entry ``j * B + b`` lies at place j of block b, so that the maximum and the sum of all blocks
are sums and maxima of rows that lie one behind the other, quick on every device. The K largest entries lie
within the K blocks with the largest maxima, and a draw is one among the blocks, then one within a block: both
look at about ``sqrt(K * V)`` numbers with care, and at all others in passing.

No shape depends on a value, so no device is waited for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["Rows", "chunks", "slices"]

_CACHED = 1 << 19
"""Numbers in the scratch on the host."""
_ON_DEVICE = 1 << 27
"""Numbers in it on a device, where it is memory that counts."""

_HASHED = 64
_BELOW_ONE = 1.0 - 2.0**-40


def chunks(logits: Tensor, picks: int) -> Iterator[tuple[slice, Rows]]:
    """All rows, some at a time, each time in the same memory.

    Args:
        logits: floating point [R, V], any device.
        picks: how many entries of a row will be looked for, about.
    """
    count, vocabulary = logits.shape
    places = max(1, round(math.sqrt(vocabulary / max(1, picks))))
    blocks = -(-vocabulary // places)
    dtype = torch.float64 if logits.dtype is torch.float64 else torch.float32
    scratch: Tensor | None = None
    for rows in slices(count, places * blocks, logits.device):
        part = logits[rows]
        if scratch is None:
            scratch = torch.empty(part.shape[0], places, blocks, dtype=dtype, device=logits.device)
        yield rows, Rows(part, scratch[: part.shape[0]])


def slices(count: int, width: int, device: torch.device) -> Iterator[slice]:
    """All rows of so many numbers, as many at a time as are worked on at once."""
    most = max(1, (_CACHED if device.type == "cpu" else _ON_DEVICE) // max(1, width))
    return (slice(first, min(first + most, count)) for first in range(0, count, most))


class Rows:
    """Some rows of logits, and a copy that is worked on: of the logits at first, of their weights later.

    A logit of ``-inf`` (or the lowest finite number, as masks have it) is an entry of probability 0.

    Args:
        logits: floating point [R, V].
        scratch: float [R, S, B], for this object alone, S * B at least V.
    """

    def __init__(self, logits: Tensor, scratch: Tensor) -> None:
        self.vocabulary = logits.shape[-1]
        self._logits = logits
        self._blocks = scratch
        self._flat = scratch.flatten(1)
        self._entries = self._flat[:, : self.vocabulary]
        self._lowest = torch.finfo(scratch.dtype).min
        if logits.dtype is scratch.dtype:
            # Padding is below every entry, so that it is never among the largest.
            torch.clamp(logits, min=self._lowest, out=self._entries)
        else:
            self._entries.copy_(logits).clamp_(min=self._lowest)
        self._flat[:, self.vocabulary :] = -torch.inf

    def largest(self) -> Tensor:
        """The largest logit of each row, float [R, 1]; non-finite, or the lowest number, if it is none."""
        return self._entries.amax(dim=-1, keepdim=True)

    def is_sound(self, largest: Tensor) -> Tensor:
        """Whether each row is a distribution, bool [R]: no NaN, no ``+inf``, and not ``-inf`` alone."""
        return (largest.isfinite() & (largest > self._lowest)).squeeze(-1)

    def top(self, k: int) -> tuple[Tensor, Tensor]:
        """The k largest logits of each row, the largest first: float and int64 [R, k]; ``-inf`` for masked
        ones."""
        places, blocks = self._blocks.shape[1:]
        if k * places * 2 > self.vocabulary:
            values, ids = self._entries.topk(k)
        else:
            best = self._blocks.amax(dim=1).topk(k, sorted=False).indices
            candidates = self._positions(best)
            values, at = self._flat.gather(1, candidates).topk(k)
            ids = candidates.gather(1, at)
        return values.masked_fill(values <= self._lowest, -torch.inf), ids

    def distances(self, ids: Tensor, largest: Tensor, temperature: float) -> Tensor:
        """How far the logits of entries are below the largest, over T: float [R, K] as int64 ``ids``."""
        values = self._entries.gather(1, ids)
        return ((largest - values) / temperature).masked_fill_(values <= self._lowest, torch.inf)

    def soften(self, largest: Tensor, temperature: float) -> None:
        """From here on the rows hold weights, ``exp((logit - largest) / T)``: 1 for the largest."""
        self._flat.sub_(largest)
        if temperature != 1:
            self._flat.mul_(1 / temperature)
        self._flat.exp_()

    def take(self, ids: Tensor) -> Tensor:
        """The weights of entries, float [R, K] as int64 ``ids``; they are 0 afterwards."""
        taken = self._flat.gather(1, ids)
        self._flat.scatter_(1, ids, 0.0)
        return taken

    def total(self) -> Tensor:
        """The sum of all weights, float64 [R]."""
        return self._blocks.sum(dim=1).sum(dim=-1, dtype=torch.float64)

    def draw(self, count: int, fixed: bool) -> Tensor:
        """Ids, int64 [R, count], each entry on average as often as its share of all weights.

        By systematic resampling: the points ``(u + i) / count`` are looked up in the cumulative weights, with
        one uniform u for a row. An entry of share p is drawn ``floor(count * p)`` or ``ceil(count * p)``
        times. If all weights are 0, any ids.

        Args:
            fixed: take u from the values of the row, see ``_uniform_of``; else it is drawn.
        """
        device = self._flat.device
        sums = self._blocks.sum(dim=1).to(torch.float64)
        up_to = sums.cumsum(dim=-1)
        u = self._uniform_of() if fixed else torch.rand_like(sums[:, :1])
        points = (u + torch.arange(count, dtype=torch.float64, device=device)) / count * up_to[:, -1:]
        blocks = torch.searchsorted(up_to, points, right=True).clamp_(max=sums.shape[1] - 1)
        of_block = sums.gather(1, blocks)
        share = (points - up_to.gather(1, blocks) + of_block) / of_block
        candidates = self._positions(blocks)
        within = self._flat.gather(1, candidates).view(*points.shape, -1).to(torch.float64).cumsum(dim=-1)
        # A share below 1 is below the whole of the block, so that an entry of weight 0 is never hit.
        target = share.clamp_(0.0, _BELOW_ONE).unsqueeze(-1) * within[..., -1:]
        place = (within <= target).sum(dim=-1).clamp_(max=within.shape[-1] - 1)
        return candidates.view(within.shape).gather(2, place.unsqueeze(-1)).squeeze(-1)

    def _positions(self, blocks: Tensor) -> Tensor:
        """Where the entries of blocks lie: int64 [R, K * S] of [R, K], block by block."""
        places, count = self._blocks.shape[1:]
        steps = torch.arange(0, places * count, count, device=blocks.device)
        return (blocks.unsqueeze(-1) + steps).flatten(1)

    def _uniform_of(self) -> Tensor:
        """A number from 0 to 1 out of each row's own logits, float64 [R, 1]: the same wherever they are the
        same.

        The bits, as ``float32``, of 64 logits that are spread evenly, and of the largest one, are multiplied
        by odd numbers, added up and mixed as SplitMix64 does.
        """
        device = self._flat.device
        spread = torch.arange(_HASHED, device=device) * (self.vocabulary - 1) // (_HASHED - 1)
        seen = torch.cat([self._logits[:, spread], self._logits.amax(dim=-1, keepdim=True)], dim=-1)
        seen = seen.to(torch.float32) + 0.0  # there are two zeros
        bits = seen.view(torch.int32).to(torch.int64)
        factors = torch.arange(1, bits.shape[1] + 1, device=device) * _signed(0x9E3779B97F4A7C15) | 1
        mixed = (bits * factors).sum(dim=-1, keepdim=True)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            mixed = (mixed ^ ((mixed >> shift) & ((1 << (64 - shift)) - 1))) * _signed(factor)
        return ((mixed >> 11) & ((1 << 53) - 1)).to(torch.float64) * 2.0**-53


def _signed(number: int) -> int:
    """A number of 64 bits as torch has them."""
    return number - (1 << 64) if number >> 63 else number
