"""Eight bits a value, scaled row by row: ``int8``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edldist.errors import CodecError, LabelError
from edldist.labels.distributions import Part, is_distribution, of_other_outputs
from edldist.labels.grammar import CodecSpec
from edldist.labels.ids import numbers_in
from edldist.labels.packing import NO_INPUTS, Codec, Packed
from edldist.labels.places import Where, in_samples
from edldist.labels.rows import slices

__all__ = ["Int8"]

_PART = "int8"
_LEVELS = 254
_SCALE_BYTES = 8


class Int8(Codec):
    """Every floating-point output [B, ..., C] as a byte a value, and two float32 for each row of C.

    A row's values are cut into 254 even steps from its least to its largest, so an error is at most half a
    step. For logits that is a KL divergence of ``spread² / 1.55 million`` nats on average, and three times
    that at worst, where the spread is that between the largest logit and the least: below 2e-4 for every row
    of a spread up to 10, and on average up to 17. A language model's rows are often wider; ``topk`` and
    ``dense:fp16`` mind no spread. A logit of ``-inf`` stays one, and has no part in the spread; so does the
    lowest number of float32, as masks have it.

    Labels are float32.
    """

    def __init__(self) -> None:
        self.spec = CodecSpec("int8")

    # Not to keep a graph of what a model returned.
    @torch.inference_mode()
    def pack(
        self, outputs: Mapping[str, Tensor], asked: Mapping[str, Tensor] = NO_INPUTS, *, fixed: bool = False
    ) -> Packed:
        packed = self._others(outputs)
        flags = []
        for name, tensor in outputs.items():
            if name not in packed:
                packed[str(Part(name, _PART, str(tensor.shape[-1])))], sound = _pack(name, tensor)
                flags.append(sound)
        return Packed(packed, torch.stack(flags).all())

    def check(
        self,
        outputs: Mapping[str, Tensor],
        asked: Mapping[str, Tensor] = NO_INPUTS,
        where: Where = in_samples,
    ) -> None:
        others = self._others(outputs)
        for name, tensor in outputs.items():
            if name in others:
                continue
            values = tensor.to(torch.float32)
            sound = values.isfinite()
            if is_distribution(name, tensor):
                sound |= values.isneginf() & sound.any(dim=-1, keepdim=True)
            if wrong := (~sound.all(dim=-1)).nonzero().tolist():
                raise CodecError(
                    f"output {name!r} has values that are not finite at {where(wrong[0])} (in {len(wrong)} "
                    f"of {sound.shape[:-1].numel()} rows): codec {self.spec} cannot hold them"
                )

    def decode(self, packed: Mapping[str, Tensor]) -> dict[str, Any]:
        labels: dict[str, Any] = {}
        for name, tensor in packed.items():
            part = Part.parse(name)
            if part is None:
                labels[name] = tensor
                continue
            columns = (int(part.mark) if part.mark.isdecimal() else 0) + _SCALE_BYTES
            if part.part != _PART or tensor.dtype is not torch.uint8 or tensor.shape[-1] != columns:
                raise LabelError(
                    f"labels {name!r}, {tensor.dtype}{list(tensor.shape)}, are none of codec int8"
                )
            labels[part.output] = _unpack(tensor, columns - _SCALE_BYTES)
        return labels

    def _others(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        others = {name: tensor for name, tensor in outputs.items() if not _is_packed(tensor)}
        none = len(others) == len(outputs)
        return of_other_outputs(others, self, "floating-point outputs [B, ..., C]" if none else "")


def _is_packed(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dim() > 1 and tensor.shape[-1] > 0


def _pack(name: str, tensor: Tensor) -> tuple[Tensor, Tensor]:
    width = tensor.shape[-1]
    flat = tensor.reshape(-1, width)
    made = torch.empty(*tensor.shape[:-1], width + _SCALE_BYTES, dtype=torch.uint8, device=tensor.device)
    rows_made = made.view(-1, width + _SCALE_BYTES)
    sound = torch.ones((), dtype=torch.bool, device=tensor.device)
    masked = is_distribution(name, tensor)
    for rows in slices(flat.shape[0], width, tensor.device):
        values = flat[rows].to(torch.float32)
        largest = values.amax(dim=-1, keepdim=True)
        absent = values <= torch.finfo(values.dtype).min if masked else None
        least = values if absent is None else values.masked_fill(absent, torch.inf)
        least = least.amin(dim=-1, keepdim=True)
        step = (largest - least) / _LEVELS
        codes = ((values - least) / step.clamp(min=torch.finfo(torch.float32).tiny)).round_().add_(1)
        codes.clamp_(1, _LEVELS + 1)
        if absent is not None:
            codes.masked_fill_(absent, 0.0)
        numbers = torch.cat([least, step], dim=-1)
        rows_made[rows, :width] = codes
        rows_made[rows, width:] = numbers.view(torch.uint8)
        sound &= numbers.isfinite().all()
    return made, sound


def _unpack(tensor: Tensor, width: int) -> Tensor:
    flat = tensor.reshape(-1, width + _SCALE_BYTES)
    made = torch.empty(*tensor.shape[:-1], width, dtype=torch.float32, device=tensor.device)
    rows_made = made.view(-1, width)
    least, step = numbers_in(flat[:, width:], torch.float32).chunk(2, dim=-1)
    for rows in slices(flat.shape[0], width, tensor.device):
        codes, values = flat[rows, :width], rows_made[rows]
        # A code of 0 is one below the least, which is kept for -inf.
        values.copy_(codes).sub_(1).mul_(step[rows]).add_(least[rows]).masked_fill_(codes == 0, -torch.inf)
    return made
