"""The most probable entries and the mass of the rest: ``topk:K`` and ``topp:P:K``."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from edldist.errors import UnfitCodecError
from edldist.labels.distributions import DistributionCodec, Part, columns_of
from edldist.labels.grammar import CodecSpec
from edldist.labels.ids import bytes_of_ids, numbers_in, pack_ids, unpack_ids
from edldist.labels.log_values import decode_values, encode_values
from edldist.labels.packing import Packed
from edldist.labels.rows import Rows
from edldist.labels.typed import TopKLabels

__all__ = ["Top", "TopMass", "pack_odds", "split_odds", "with_temperature"]

_HALF_MOST = 65504.0
_ODDS_BYTES = 2
_SPAN_BYTES = 2


def with_temperature(
    parameters: dict[str, str | int | float | bool], temperature: float
) -> dict[str, str | int | float | bool]:
    """Parameters of a spec: a temperature of 1 is not in it."""
    return parameters if temperature == 1 else parameters | {"temperature": temperature}


def pack_odds(rest: Tensor, kept: Tensor) -> Tensor:
    """How the rest stands to what was kept, ``log(rest / kept)``, float16 [R, 1] of float64 [R]."""
    return (rest / kept).log().clamp(-_HALF_MOST, _HALF_MOST).to(torch.float16).unsqueeze(-1)


def split_odds(odds: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithms of the mass kept and of the rest, float32 [..., 1] each; ``-inf`` for no rest."""
    odds = odds.to(torch.float32)
    return F.logsigmoid(-odds), F.logsigmoid(odds).masked_fill(odds <= -_HALF_MOST, -torch.inf)


class Top(DistributionCodec):
    """``topk:K[:T]``: the K largest of ``softmax(logits / T)``, and how much all others have together.

    A row takes 3 K + 4 bytes (V from 257 to 65,536): ids, log-probabilities in 8 bits, their span, and the
    odds of the rest. What travels is the distribution at T, tail and all, so a loss at T is as exact as one
    at 1; no other temperature can be had of it, because a tail's mass at one says nothing of that at another.

    Args:
        kept: K.
        temperature: T.
    """

    part = "topk"

    def __init__(self, kept: int, temperature: float = 1) -> None:
        self.spec = CodecSpec("topk", with_temperature({"kept": kept}, temperature))
        self.picks = kept
        self.keeps = ("K", kept)
        self._temperature = temperature

    def columns(self, vocabulary: int, asked: Tensor | None) -> tuple[int, torch.dtype]:
        return bytes_of_ids(self.picks, vocabulary) + self.picks + _SPAN_BYTES + _ODDS_BYTES, torch.uint8

    def pack_rows(self, rows: Rows, asked: Tensor | None, fixed: bool) -> tuple[Tensor, Tensor]:
        values, ids = rows.top(self.picks)
        largest = values[:, :1]
        sound = rows.is_sound(largest)
        rows.soften(largest, self._temperature)
        weights = rows.take(ids).to(torch.float64)
        below = (largest - values) / self._temperature
        return self._columns(ids, below, weights, rows.total(), rows.vocabulary), sound

    def top_entries(self) -> int:
        if self._temperature != 1:
            raise UnfitCodecError(
                f"codec {self.spec} packs softmax(logits / {self._temperature:g}), for which all logits are "
                "needed, and this teacher tells the most probable entries at temperature 1 alone: leave the "
                "temperature out"
            )
        return self.picks

    @torch.inference_mode()
    def pack_top(self, outputs: Mapping[str, TopKLabels]) -> Packed:
        wanted = self.top_entries()
        packed = {}
        for name, labels in outputs.items():
            if labels.log_probs.shape[-1] != wanted or labels.temperature != 1 or wanted > labels.vocabulary:
                raise UnfitCodecError(
                    f"codec {self.spec} packs {wanted} entries at temperature 1; of output {name!r} "
                    f"there are {labels.log_probs.shape[-1]} of {labels.vocabulary} at {labels.temperature:g}"
                )
            ids, values = labels.ids.reshape(-1, wanted), labels.log_probs.reshape(-1, wanted)
            unknown = values.isnan().any(dim=-1, keepdim=True)
            largest = values[:, :1]
            below = (largest - values).masked_fill(unknown, 0.0)
            rest = (labels.log_tail.reshape(-1, 1) - largest).masked_fill(unknown, -torch.inf)
            columns = self._columns(
                ids, below, (-below.double()).exp(), rest.squeeze(-1).double().exp(), labels.vocabulary
            )
            numbers = columns[:, -(_SPAN_BYTES + _ODDS_BYTES) :]
            nothing = torch.full_like(rest, torch.nan, dtype=torch.float16).expand(-1, 2).contiguous()
            numbers.copy_(torch.where(unknown, nothing.view(torch.uint8), numbers))
            packed[str(Part(name, self.part, str(labels.vocabulary)))] = columns.view(
                *labels.ids.shape[:-1], columns.shape[-1]
            )
        return Packed(dict(sorted(packed.items())))

    def _columns(self, ids: Tensor, below: Tensor, weights: Tensor, rest: Tensor, vocabulary: int) -> Tensor:
        """What travels of rows.

        Args:
            ids: int64 [R, K], the most probable first.
            below: float [R, K], how far the log-probabilities are below the first.
            weights: float64 [R, K], the probabilities over that of the first.
            rest: float64 [R], that of all other entries together.

        Returns:
            uint8 [R, columns].
        """
        absent = self._left_out(weights, rest)
        if absent is not None:
            rest = rest + weights.masked_fill(~absent, 0.0).sum(dim=-1)
            weights = weights.masked_fill(absent, 0.0)
            below = below.masked_fill(absent, torch.inf)
        codes, span = encode_values(below)
        odds = pack_odds(rest, weights.sum(dim=-1))
        numbers = torch.cat([span, odds], dim=-1).view(torch.uint8)
        return torch.cat([pack_ids(ids, vocabulary), codes, numbers], dim=-1)

    def unpack(self, name: str, columns: Tensor, vocabulary: int) -> TopKLabels:
        columns_of(name, columns, *self.columns(vocabulary, None))
        id_bytes = bytes_of_ids(self.picks, vocabulary)
        ids, codes, numbers = columns.tensor_split([id_bytes, id_bytes + self.picks], dim=-1)
        span, odds = numbers_in(numbers, torch.float16).chunk(2, dim=-1)
        log_kept, log_rest = split_odds(odds)
        return TopKLabels(
            ids=unpack_ids(ids, self.picks, vocabulary),
            log_probs=decode_values(codes, span) + log_kept,
            log_tail=log_rest.squeeze(-1),
            vocabulary=vocabulary,
            temperature=self._temperature,
        )

    def _left_out(self, weights: Tensor, rest: Tensor) -> Tensor | None:
        """Which of the kept entries are not to be kept after all, bool [R, K]; None for none."""
        return None


class TopMass(Top):
    """``topp:P:K[:T]``: of the K largest as few, from the top, as have a share P together; at least one.

    Rows keep the place of K entries, because all rows of a tensor are of one size: it saves no bytes over
    ``topk``. It is for those who want a nucleus, and no entry that is not in it.

    Args:
        mass: P.
        kept: K.
        temperature: T.
    """

    part = "topp"

    def __init__(self, mass: float, kept: int, temperature: float = 1) -> None:
        super().__init__(kept, temperature)
        self.spec = CodecSpec("topp", with_temperature({"mass": mass, "kept": kept}, temperature))
        self._mass = mass

    def _left_out(self, weights: Tensor, rest: Tensor) -> Tensor | None:
        up_to = weights.cumsum(dim=-1)
        whole = (up_to[:, -1] + rest).unsqueeze(-1)
        return up_to - weights >= self._mass * whole
