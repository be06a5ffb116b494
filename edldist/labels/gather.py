"""The teacher's log-probabilities at entries that the student names: ``gather``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from edldist.errors import LabelError, UnfitCodecError, UnlabelableError
from edldist.labels.distributions import DistributionCodec
from edldist.labels.grammar import CodecSpec
from edldist.labels.packing import NO_INPUTS
from edldist.labels.places import Where, in_samples
from edldist.labels.rows import Rows
from edldist.labels.top import with_temperature
from edldist.labels.typed import GatheredLabels

__all__ = ["GATHER_IDS", "Gather"]

GATHER_IDS = "gather_ids"
"""The input that says which entries."""


class Gather(DistributionCodec):
    """``gather[:T]``: ``log softmax(logits / T)`` at ids that come along with the sample, float32.

    The student sends ``gather_ids`` beside the model's inputs: integers [B, ..., G], G for each row of the
    logits [B, ..., V]. The model does not see them. What travels are G numbers, and the mass of all others
    (which follows from the only one if G is 1): 4 bytes a token then.

    Args:
        temperature: T.
    """

    part = "gather"
    asks: ClassVar[frozenset[str]] = frozenset((GATHER_IDS,))

    def __init__(self, temperature: float = 1) -> None:
        self.spec = CodecSpec("gather", with_temperature({}, temperature))
        self.picks = 1
        self._temperature = temperature

    def fit(self, name: str, logits: Tensor, asked: Mapping[str, Tensor]) -> None:
        ids = asked.get(GATHER_IDS)
        if ids is None:
            raise UnfitCodecError(
                f"codec {self.spec} gives the log-probabilities of entries that the student names, and no "
                f"{GATHER_IDS!r} came with the samples: have inputs= of the student's DistillLoader or "
                f"LabelRequests pick them, integers [B, ..., G] for logits [B, ..., V]"
            )
        if ids.is_floating_point() or ids.dtype is torch.bool:
            raise UnfitCodecError(f"{GATHER_IDS!r} are {ids.dtype}: ids are integers")
        if ids.dim() != logits.dim() or ids.shape[:-1] != logits.shape[:-1] or not ids.shape[-1]:
            raise UnfitCodecError(
                f"{GATHER_IDS!r} are {list(ids.shape)}, and output {name!r} is {list(logits.shape)}: they "
                "must agree in all dimensions but the last, which has at least one id"
            )

    def check(
        self,
        outputs: Mapping[str, Tensor],
        asked: Mapping[str, Tensor] = NO_INPUTS,
        where: Where = in_samples,
    ) -> None:
        super().check(outputs, asked, where)
        for name, logits in self._distributions(outputs):
            ids, size = asked[GATHER_IDS].to(torch.int64), logits.shape[-1]
            outside = ((ids < 0) | (ids >= size)).nonzero()
            if outside.shape[0]:
                at = outside[0].tolist()
                raise UnlabelableError(
                    f"{GATHER_IDS!r}: {int(ids[tuple(at)])} at {where(at[:-1])} is no entry of output "
                    f"{name!r}, which has {size} (so are {outside.shape[0]} of {ids.numel()}). Where the "
                    "loss does not look, send any that is one, as 0"
                )

    def asked_of(self, logits: Tensor, asked: Mapping[str, Tensor]) -> Tensor | None:
        ids = asked[GATHER_IDS]
        return ids.reshape(-1, ids.shape[-1]).to(logits.device, non_blocking=True)

    def columns(self, vocabulary: int, asked: Tensor | None) -> tuple[int, torch.dtype]:
        assert asked is not None
        count = asked.shape[-1]
        return count + (count > 1), torch.float32

    def pack_rows(self, rows: Rows, asked: Tensor | None, fixed: bool) -> tuple[Tensor, Tensor]:
        assert asked is not None
        wanted = asked.to(torch.int64)
        ids = wanted.clamp(0, rows.vocabulary - 1)
        largest = rows.largest()
        sound = rows.is_sound(largest) & (wanted == ids).all(dim=-1)
        below = rows.distances(ids, largest, self._temperature)
        rows.soften(largest, self._temperature)
        # One that is asked for twice is in the mass once.
        first, order = ids.sort(dim=-1)
        again = torch.zeros_like(first, dtype=torch.bool)
        again[:, 1:] = first[:, 1:] == first[:, :-1]
        weights = rows.take(ids).gather(1, order).masked_fill(again, 0.0)
        inside, rest = weights.sum(dim=-1, dtype=torch.float64), rows.total()
        # Beside a whole of 1 a rest of 1e-20 is seen in the logarithm alone.
        log_whole = torch.logaddexp(inside.log(), rest.log()).unsqueeze(-1)
        log_probs = -(below.to(torch.float64) + log_whole)
        if ids.shape[-1] > 1:
            log_probs = torch.cat([log_probs, rest.log().unsqueeze(-1) - log_whole], dim=-1)
        return log_probs.to(torch.float32), sound

    def unpack(self, name: str, columns: Tensor, vocabulary: int) -> GatheredLabels:
        count = columns.shape[-1] if columns.dim() else 0
        if columns.dtype is not torch.float32 or count in (0, 2):
            raise LabelError(
                f"labels {name!r} are {columns.dtype}{list(columns.shape)}; they must be float32, one "
                f"column, or one for each id and one for all others"
            )
        if count == 1:
            outside = (-torch.expm1(columns)).clamp(min=0.0).log()
            return GatheredLabels(columns, outside.squeeze(-1), self._temperature)
        return GatheredLabels(columns[..., :-1], columns[..., -1], self._temperature)
