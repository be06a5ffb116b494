"""How far apart two workers' answers to the same samples are: what travels for that, and the distance.

A worker that is asked to be compared answers in no codec of its group's, because some of these draw: two
healthy workers would draw differently. It answers as ``Compared`` packs: of each row of logits the most
probable entries with their log-probabilities, and the mass of all others; every other output as it is.

Shape legend: R rows, V entries of the vocabulary (classes), K kept of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from edldist.labels.distributions import DistributionCodec, Part, columns_of, of_other_outputs
from edldist.labels.grammar import CodecSpec
from edldist.labels.packing import NO_INPUTS, Packed
from edldist.labels.places import Where, in_samples
from edldist.labels.rows import Rows
from edldist.labels.typed import GatheredLabels, HiddenLabels, SampledLabels, TopKLabels

__all__ = ["Compared", "Difference", "differences", "is_constant"]

_KEPT = 64
_POSITIONS = 32
_NARROW = 1024
_HIDDEN = "hidden"
_VALUES = "values"
_NOWHERE = -46.0  # log of 1e-20: no probability
_SAME = 1e-6


class Compared(DistributionCodec):
    """Packs what is compared: the 64 most probable entries of a row, exactly, and the mass of all others.

    Rows of up to 1,024 entries travel as they are beside it: what a model calls its logits may be an
    embedding, whose softmax says little. Of samples with several positions each, 32 are compared. No job can
    ask for it: it is not among the codecs. A row takes 516 bytes, and up to 4,096 for such values, whatever
    the vocabulary.
    """

    part = "compared"
    spec = CodecSpec("compared")
    picks = _KEPT

    def pack(
        self, outputs: Mapping[str, Tensor], asked: Mapping[str, Tensor] = NO_INPUTS, *, fixed: bool = False
    ) -> Packed:
        packed = self._others(outputs)
        if _HIDDEN in packed:
            packed[_HIDDEN] = _some_positions(packed[_HIDDEN])
        sound = None
        for name, whole in self._distributions(outputs):
            width, logits = whole.shape[-1], _some_positions(whole)
            packed[str(Part(name, self.part, str(width)))], its = self._pack(name, logits, asked, fixed)
            sound = its if sound is None else sound & its
            if width <= _NARROW:
                packed[str(Part(name, _VALUES, str(width)))] = logits.to(torch.float32)
        return Packed(packed, sound)

    def check(
        self,
        outputs: Mapping[str, Tensor],
        asked: Mapping[str, Tensor] = NO_INPUTS,
        where: Where = in_samples,
    ) -> None:
        for name, logits in self._distributions(outputs):
            self._refuse_unsound(name, logits, where)

    def decode(self, packed: Mapping[str, Tensor]) -> dict[str, Any]:
        parts = {name: Part.parse(name) for name in packed}
        values = {name: part for name, part in parts.items() if part is not None and part.part == _VALUES}
        labels = super().decode({name: tensor for name, tensor in packed.items() if name not in values})
        return labels | {f"{part.output} as values": packed[name] for name, part in values.items()}

    def _distributions(self, outputs: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        return ((name, tensor) for name, tensor in super()._distributions(outputs) if tensor.shape[-1] > 1)

    def _others(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        packed = {name for name, _ in self._distributions(outputs)}
        others = {name: tensor for name, tensor in outputs.items() if name not in packed}
        return of_other_outputs(others, self, "")

    def columns(self, vocabulary: int, asked: Tensor | None) -> tuple[int, torch.dtype]:
        return 2 * min(_KEPT, vocabulary) + 1, torch.int32

    def pack_rows(self, rows: Rows, asked: Tensor | None, fixed: bool) -> tuple[Tensor, Tensor]:
        values, ids = rows.top(min(_KEPT, rows.vocabulary))
        largest = values[:, :1]
        sound = rows.is_sound(largest)
        rows.soften(largest, 1.0)
        kept = rows.take(ids).sum(dim=-1, dtype=torch.float64, keepdim=True)
        rest = rows.total().unsqueeze(-1)
        log_whole = (kept + rest).log()
        log_probs = (values - largest).to(torch.float64) - log_whole
        numbers = torch.cat([log_probs, rest.log() - log_whole], dim=-1).to(torch.float32)
        return torch.cat([ids.to(torch.int32), numbers.view(torch.int32)], dim=-1), sound

    def unpack(self, name: str, columns: Tensor, vocabulary: int) -> TopKLabels:
        columns_of(name, columns, *self.columns(vocabulary, None))
        kept = min(_KEPT, vocabulary)
        numbers = columns[..., kept:].contiguous().view(torch.float32)
        return TopKLabels(
            columns[..., :kept].to(torch.int64), numbers[..., :-1], numbers[..., -1], vocabulary
        )


class Difference(NamedTuple):
    """How far apart two answers are in one output.

    Attributes:
        output: its name.
        value: of the row in which they differ most; infinite where they cannot be compared.
        unit: ``nats`` of symmetric KL divergence, or ``relative``: the length of the difference of two rows
            by that of the longest row.
        why: what cannot be compared, in words; else empty.
    """

    output: str
    value: float
    unit: str
    why: str = ""

    def __str__(self) -> str:
        off = "nats" if self.unit == "nats" else "of a row's length"
        return self.why or f"its output {self.output!r} is {self.value:.3g} {off} off"


def differences(mine: Mapping[str, Any], its: Mapping[str, Any], rows: int | None = None) -> list[Difference]:
    """Compare the labels of two workers for the same samples.

    Integers, booleans and drawn labels are left out: rounding may change any of them.

    Args:
        mine, its: labels by output, rows first.
        rows: how many of the first rows of each are compared; None: all.
    """
    if mine.keys() != its.keys():
        why = f"it answers with outputs {sorted(mine)}, and not {sorted(its)}"
        return [Difference("", math.inf, "nats", why)]
    found = (_difference(name, mine[name], its[name], rows) for name in mine)
    return [each for each in found if each is not None]


def is_constant(labels: Mapping[str, Any]) -> bool:
    """Whether each row of every output is like the first one."""
    looked_at = 0
    for tensor in _numbers(labels):
        if tensor.shape[0] < 2 or not bool((tensor - tensor[:1]).nan_to_num(0.0).abs().max() <= _SAME):
            return False
        looked_at += 1
    return looked_at > 0


def _some_positions(rows: Tensor) -> Tensor:
    """Of [B, ..., V], 32 positions, spread evenly over ``...``: [B, 32, V]; all, if there are fewer."""
    if rows.dim() < 3 or (count := rows[0, ..., 0].numel()) <= _POSITIONS:
        return rows
    places = torch.arange(_POSITIONS, device=rows.device) * (count - 1) // (_POSITIONS - 1)
    return rows.flatten(1, -2)[:, places]


def _numbers(labels: Mapping[str, Any]) -> Iterator[Tensor]:
    for value in labels.values():
        if isinstance(value, TopKLabels):
            yield value.ids.to(torch.float64)
            yield value.log_probs
        elif isinstance(value, HiddenLabels):
            yield value.hidden.float()
        elif isinstance(value, Tensor) and value.numel():
            yield value.to(torch.float64)


def _difference(name: str, mine: Any, its: Any, rows: int | None) -> Difference | None:
    if isinstance(mine, HiddenLabels) and isinstance(its, HiddenLabels):
        mine, its = mine.hidden, its.hidden
    shapes = [_shape(labels, rows) for labels in (mine, its)]
    if shapes[0] != shapes[1]:
        why = f"its output {name!r} is {shapes[0]}, and not {shapes[1]}"
        return Difference(name, math.inf, "nats", why)
    if isinstance(mine, TopKLabels):
        if _equal(_first(mine, rows), _first(its, rows)):
            return Difference(name, 0.0, "nats")
        return Difference(name, _worst(_of_tops(_first(mine, rows), _first(its, rows))), "nats")
    if isinstance(mine, GatheredLabels):
        whole = [torch.cat([each.log_probs, each.log_outside.unsqueeze(-1)], dim=-1) for each in (mine, its)]
        apart = _symmetric(*(each[:rows].exp() for each in whole))
        return Difference(name, _worst(apart), "nats")
    if isinstance(mine, SampledLabels) or not mine.is_floating_point():
        return None
    if torch.equal(mine[:rows], its[:rows]):
        return Difference(name, 0.0, "relative")
    return Difference(name, _worst(_relative(mine[:rows], its[:rows])), "relative")


def _equal(mine: TopKLabels, its: TopKLabels) -> bool:
    """Whether they are the same to the last bit, as those of equal devices are."""
    pairs = ((mine.ids, its.ids), (mine.log_probs, its.log_probs), (mine.log_tail, its.log_tail))
    return all(torch.equal(one, other) for one, other in pairs)


def _shape(labels: Any, rows: int | None) -> str:
    if isinstance(labels, TopKLabels):
        return f"{list(labels.log_tail[:rows].shape)} distributions over {labels.vocabulary} classes"
    if isinstance(labels, Tensor):
        return f"{'' if labels.is_floating_point() else 'integers '}{list(labels[:rows].shape)}"
    if isinstance(labels, GatheredLabels):
        return f"log-probabilities {list(labels.log_probs[:rows].shape)}"
    return type(labels).__name__


def _first(labels: TopKLabels, rows: int | None) -> TopKLabels:
    """The first rows, one behind the other."""
    kept = labels.ids.shape[-1]
    return TopKLabels(
        labels.ids[:rows].reshape(-1, kept),
        labels.log_probs[:rows].reshape(-1, kept),
        labels.log_tail[:rows].reshape(-1),
        labels.vocabulary,
    )


def _of_tops(mine: TopKLabels, its: TopKLabels) -> Tensor:
    """Symmetric KL divergence of each row, float [R]: the least that two such distributions can have.

    Entries that both name are classes, and so is all else. What only one side names has, on the other side,
    no more than its least named entry has, and is taken to be as like as that allows.
    """
    p, q = mine.log_probs.double().exp(), its.log_probs.double().exp()
    q_there, p_there = _looked_up(mine.ids, its.ids, q), _looked_up(its.ids, mine.ids, p)
    shared = (p > 0) & (q_there > 0)
    apart = _symmetric(p.where(shared, p.new_zeros(())), q_there.where(shared, p.new_zeros(())))
    p_rest, q_rest = mine.log_tail.double().exp(), its.log_tail.double().exp()
    p_only, q_of_it = _one_sided(p, shared, q, q_rest)
    q_only, p_of_it = _one_sided(q, (q > 0) & (p_there > 0), p, p_rest)
    others = [(p_only, q_of_it), (p_of_it, q_only)]
    others.append(((p_rest - p_of_it).clamp(min=0.0), (q_rest - q_of_it).clamp(min=0.0)))
    for one, other in others:
        apart = apart + _symmetric(one.unsqueeze(-1), other.unsqueeze(-1))
    # Rows of which neither side knows anything, such as padding.
    return apart.masked_fill(mine.log_tail.isnan() & its.log_tail.isnan(), 0.0)


def _looked_up(wanted: Tensor, ids: Tensor, values: Tensor) -> Tensor:
    """The values of wanted ids, double [R, K]; 0 for those that are not among ``ids`` [R, K']."""
    known, order = ids.sort(dim=-1)
    at = torch.searchsorted(known, wanted).clamp(max=ids.shape[-1] - 1)
    found = values.gather(-1, order.gather(-1, at))
    return found.masked_fill(known.gather(-1, at) != wanted, 0.0)


def _one_sided(p: Tensor, shared: Tensor, q: Tensor, q_rest: Tensor) -> tuple[Tensor, Tensor]:
    """The mass of what only one side names, and the most like it that the other side may give it."""
    only = (p > 0) & ~shared
    mass = (p * only).sum(dim=-1)
    least = q.where(q > 0, q.new_full((), torch.inf)).amin(dim=-1).clamp(max=1.0)
    return mass, torch.minimum(mass, torch.minimum(only.sum(dim=-1) * least, q_rest))


def _symmetric(p: Tensor, q: Tensor) -> Tensor:
    """Half of ``KL(p, q) + KL(q, p)`` of each row of probabilities [R, ...]: no term of it is negative."""
    p, q = p.double(), q.double()
    terms = (p - q) * (p.log().clamp(min=_NOWHERE) - q.log().clamp(min=_NOWHERE))
    return 0.5 * terms.flatten(1).sum(dim=1)


def _relative(mine: Tensor, its: Tensor) -> Tensor:
    """``|a - b|`` of each row, by the length of the longest row: float [R].

    A short row may be the difference of large numbers, whose rounding it bears.
    """
    if mine.dim() < 1 or not mine.numel():
        return torch.zeros(1, device=mine.device)
    one, other = (each.double().reshape(each.shape[0], -1) for each in (mine, its))
    equal = (one == other) | (one.isnan() & other.isnan())
    apart = (one - other).masked_fill(equal, 0.0).norm(dim=1)
    longest = max(each.nan_to_num(0.0, 0.0, 0.0).norm(dim=1).max() for each in (one, other))
    return torch.div(apart, longest.clamp(min=1e-30))


def _worst(apart: Tensor) -> float:
    """The largest; infinite where it is no number."""
    return float(apart.nan_to_num(torch.inf, torch.inf).max()) if apart.numel() else 0.0
