"""Entries drawn from the distribution: ``rs:N``, and ``head+rs:M:N`` with the largest ones exact.

After "Sparse Logit Sampling" (arXiv 2503.16870): a truncated distribution misleads a student, which learns
that what was cut off has no probability, or an even one. Drawn entries mislead it on no average: each counts
by its probability. With the head exact and only the rest drawn, nothing is left to chance where most of the
mass is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edldist.labels.distributions import DistributionCodec, columns_of
from edldist.labels.grammar import CodecSpec
from edldist.labels.ids import bytes_of_ids, numbers_in, pack_ids, unpack_ids
from edldist.labels.log_values import decode_values, encode_values
from edldist.labels.rows import Rows
from edldist.labels.top import pack_odds, split_odds, with_temperature
from edldist.labels.typed import SampledLabels

__all__ = ["HeadAndSampled", "Sampled"]

_NUMBER_BYTES = 4


class Sampled(DistributionCodec):
    """``rs:N[:T]``: N entries drawn from ``softmax(logits / T)``, each of which counts 1 / N.

    Drawn by systematic resampling (``Rows.draw``): unbiased, with less variance than independent draws. A row
    takes 2 N bytes (V from 257 to 65,536).

    Each pass draws anew, so that a student which meets a sample again learns from other draws. Where labels
    must depend on nothing but their inputs (``deterministic: true``), the draws of a row come out of its own
    logits, and are the same each time: what does not average out over samples then never does.

    Args:
        drawn: N.
        temperature: T.
    """

    part = "rs"

    def __init__(self, drawn: int, temperature: float = 1) -> None:
        self.spec = CodecSpec("rs", with_temperature({"drawn": drawn}, temperature))
        self.picks = drawn
        self._temperature = temperature

    def columns(self, vocabulary: int, asked: Tensor | None) -> tuple[int, torch.dtype]:
        return bytes_of_ids(self.picks, vocabulary), torch.uint8

    def pack_rows(self, rows: Rows, asked: Tensor | None, fixed: bool) -> tuple[Tensor, Tensor]:
        largest = rows.largest()
        rows.soften(largest, self._temperature)
        return pack_ids(rows.draw(self.picks, fixed), rows.vocabulary), rows.is_sound(largest)

    def unpack(self, name: str, columns: Tensor, vocabulary: int) -> SampledLabels:
        columns_of(name, columns, *self.columns(vocabulary, None))
        ids = unpack_ids(columns, self.picks, vocabulary)
        probs = torch.full(ids.shape, 1 / self.picks, dtype=torch.float32, device=ids.device)
        return SampledLabels(ids, probs, 0, vocabulary, self._temperature)


class HeadAndSampled(DistributionCodec):
    """``head+rs:M:N[:T]``: the M largest of ``softmax(logits / T)``, and N entries drawn from the others.

    A row takes 3 M + 2 N + 4 bytes (V from 257 to 65,536). The drawn ones share the mass of the rest evenly.
    Drawn as ``rs`` draws. An entry is worth its place in the head while it has more than 1 / N of the rest:
    below that, one more draw leaves less to chance.

    Args:
        kept: M.
        drawn: N.
        temperature: T.
    """

    part = "head+rs"

    def __init__(self, kept: int, drawn: int, temperature: float = 1) -> None:
        self.spec = CodecSpec("head+rs", with_temperature({"kept": kept, "drawn": drawn}, temperature))
        self.picks = kept + drawn
        self._kept, self._drawn = kept, drawn
        self.keeps = ("M", kept)
        self._temperature = temperature

    def columns(self, vocabulary: int, asked: Tensor | None) -> tuple[int, torch.dtype]:
        return bytes_of_ids(self.picks, vocabulary) + self._kept + _NUMBER_BYTES, torch.uint8

    def pack_rows(self, rows: Rows, asked: Tensor | None, fixed: bool) -> tuple[Tensor, Tensor]:
        values, head = rows.top(self._kept)
        largest = values[:, :1]
        rows.soften(largest, self._temperature)
        kept = rows.take(head).sum(dim=-1, dtype=torch.float64)
        codes, span = encode_values((largest - values) / self._temperature)
        numbers = torch.cat([span, pack_odds(rows.total(), kept)], dim=-1).view(torch.uint8)
        ids = pack_ids(torch.cat([head, rows.draw(self._drawn, fixed)], dim=-1), rows.vocabulary)
        return torch.cat([ids, codes, numbers], dim=-1), rows.is_sound(largest)

    def unpack(self, name: str, columns: Tensor, vocabulary: int) -> SampledLabels:
        columns_of(name, columns, *self.columns(vocabulary, None))
        id_bytes = bytes_of_ids(self.picks, vocabulary)
        ids, codes, numbers = columns.tensor_split([id_bytes, id_bytes + self._kept], dim=-1)
        span, odds = numbers_in(numbers, torch.float16).chunk(2, dim=-1)
        log_kept, log_rest = split_odds(odds)
        head = (decode_values(codes, span) + log_kept).exp()
        each = (log_rest.exp() / self._drawn).expand(*head.shape[:-1], self._drawn)
        return SampledLabels(
            ids=unpack_ids(ids, self.picks, vocabulary),
            probs=torch.cat([head, each], dim=-1),
            exact=self._kept,
            vocabulary=vocabulary,
            temperature=self._temperature,
        )
