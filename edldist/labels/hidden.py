"""The last hidden state, to which the student's side applies the teacher's head: ``hidden``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edldist.errors import CodecError, LabelError, UnfitCodecError
from edldist.labels.distributions import Part, of_other_outputs
from edldist.labels.grammar import CodecSpec
from edldist.labels.head import find_head, head_digest
from edldist.labels.packing import NO_INPUTS, Codec, Packed
from edldist.labels.places import Where, in_samples
from edldist.labels.typed import HiddenLabels

__all__ = ["Hidden"]

_OUTPUT, _PART = "hidden", "bf16"


class Hidden(Codec):
    """The output ``hidden`` [B, ..., D], after the final norm, as bf16; all others as they are.

    A token takes 2 D bytes whatever the vocabulary. The student's side needs the teacher's head; its digest
    is in the name of what travels, so that workers with another one are refused, and ``HiddenLabels.head``
    says which one belongs to the states.

    Args:
        head: digest and width of the teacher's head, on the worker's side.
    """

    def __init__(self, head: tuple[str, int] | None = None) -> None:
        self.spec = CodecSpec("hidden")
        self._head = head

    def serving(self, model: Any) -> Hidden:
        weight, bias = find_head(model)
        return Hidden((head_digest(weight, bias), weight.shape[1]))

    def pack(
        self, outputs: Mapping[str, Tensor], asked: Mapping[str, Tensor] = NO_INPUTS, *, fixed: bool = False
    ) -> Packed:
        others, hidden, name = self._parted(outputs)
        made = hidden.to(torch.bfloat16)
        return Packed(others | {name: made}, made.sum(dtype=torch.float32).isfinite())

    def check(
        self,
        outputs: Mapping[str, Tensor],
        asked: Mapping[str, Tensor] = NO_INPUTS,
        where: Where = in_samples,
    ) -> None:
        _, hidden, _ = self._parted(outputs)
        finite = hidden.to(torch.bfloat16).isfinite().all(dim=-1)
        if wrong := (~finite).nonzero().tolist():
            raise CodecError(
                f"output {_OUTPUT!r} has values that are not finite, or beyond bf16, at {where(wrong[0])} "
                f"(in {len(wrong)} of {finite.numel()} rows)"
            )

    def decode(self, packed: Mapping[str, Tensor]) -> dict[str, Any]:
        labels: dict[str, Any] = {}
        for name, tensor in packed.items():
            part = Part.parse(name)
            if part is None:
                labels[name] = tensor
            elif part.part != _PART or tensor.dtype is not torch.bfloat16:
                raise LabelError(f"labels {name!r}, {tensor.dtype}, are none of codec {self.spec}")
            else:
                labels[part.output] = HiddenLabels(tensor, part.mark)
        return labels

    def _parted(self, outputs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, str]:
        """The other outputs, the hidden state, and the name under which that travels."""
        if self._head is None:
            raise UnfitCodecError(f"codec {self.spec} packs for a model that has a head: see Codec.serving")
        digest, width = self._head
        hidden = outputs.get(_OUTPUT)
        others = {name: tensor for name, tensor in outputs.items() if name != _OUTPUT}
        there = hidden is not None and hidden.is_floating_point() and hidden.dim() > 1
        packed = of_other_outputs(others if there else outputs, self, "" if there else "hidden [B, ..., D]")
        assert hidden is not None
        if hidden.shape[-1] != width:
            raise UnfitCodecError(
                f"output {_OUTPUT!r} is {list(hidden.shape)}, and the head of the model takes {width}: it "
                f"is not the state to which the head is applied"
            )
        return packed, hidden, str(Part(_OUTPUT, _PART, digest))
