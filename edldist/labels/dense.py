"""Every value of every output, optionally as another float type."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edldist.errors import CodecError
from edldist.labels.distributions import is_distribution
from edldist.labels.grammar import CodecSpec
from edldist.labels.packing import NO_INPUTS, Codec, Packed
from edldist.labels.places import Where, in_samples
from edldist.labels.rows import slices

__all__ = ["Dense"]

_FLOATS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_NOWHERE = 200.0  # nats below the largest: no probability in float32


class Dense(Codec):
    """``dense`` keeps dtypes; ``dense:fp32|fp16|bf16`` casts floating-point outputs.

    ``dense:fp16:softmax`` and ``dense:bf16:softmax`` shift logits (``is_distribution``), row by row, to where
    such numbers are finest, before they are cast: by their maximum for fp16, by their mean under their own
    distribution for bf16, which has fewer digits. That changes no softmax, and everything else: it is for
    labels whose softmax alone is looked at. The KL divergence stays below 2e-6 nats for fp16; for bf16 it is
    1e-6 on even rows, and up to 5e-5 on steep ones: take fp16 where there is the choice. Rows with NaN or
    ``+inf`` stay as they are.

    Labels are delivered in the dtype that travelled; the losses compute in float32.

    Args:
        dtype: ``fp32``, ``fp16`` or ``bf16``; None keeps what the model returns.
        use: ``softmax`` if nothing but that of logits is looked at.
    """

    def __init__(self, dtype: str | None = None, use: str | None = None) -> None:
        self._dtype = None if dtype is None else _FLOATS[dtype]
        self._shifts = use is not None
        given = {"dtype": dtype, "use": use}
        self.spec = CodecSpec("dense", {name: value for name, value in given.items() if value is not None})

    def pack(
        self, outputs: Mapping[str, Tensor], asked: Mapping[str, Tensor] = NO_INPUTS, *, fixed: bool = False
    ) -> Packed:
        if self._dtype is None:
            return Packed(dict(outputs))
        return Packed({name: self._cast(name, tensor, self._dtype) for name, tensor in outputs.items()})

    def check(
        self,
        outputs: Mapping[str, Tensor],
        asked: Mapping[str, Tensor] = NO_INPUTS,
        where: Where = in_samples,
    ) -> None:
        if self._dtype is not torch.float16:
            return
        for name, tensor in outputs.items():
            if tensor.is_floating_point() and tensor.dtype is not torch.float16 and tensor.itemsize > 1:
                self._check_range(name, tensor)

    def decode(self, packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(packed)

    def _cast(self, name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        if not tensor.is_floating_point() or tensor.dtype is dtype:
            return tensor
        if (
            self._shifts
            and dtype.itemsize == 2
            and tensor.itemsize > 1
            and is_distribution(name, tensor)
            and tensor.shape[-1] > 1
        ):
            return _shifted(tensor, dtype)
        return tensor.to(dtype)

    def _check_range(self, name: str, tensor: Tensor) -> None:
        if self._shifts and is_distribution(name, tensor):
            return  # what is far enough below the maximum has no probability in any type
        finite = tensor[tensor.isfinite()]
        if finite.numel() and finite.abs().max() > torch.finfo(torch.float16).max:
            raise CodecError(
                f"output {name!r} has values up to {finite.abs().max().item():.3g}, beyond fp16's 65504; "
                "use dense:bf16 or dense:fp32"
            )


# Not to keep a graph of what a model returned.
@torch.inference_mode()
def _shifted(logits: Tensor, dtype: torch.dtype) -> Tensor:
    """Logits in 16 bits, less the largest of their row, or less their mean under ``softmax``."""
    made = torch.empty(logits.shape, dtype=dtype, device=logits.device)
    flat, rows_made = logits.reshape(-1, logits.shape[-1]), made.view(-1, logits.shape[-1])
    for rows in slices(flat.shape[0], flat.shape[1], logits.device):
        values = flat[rows] if logits.itemsize > 2 else flat[rows].to(torch.float32)
        largest = values.amax(dim=-1, keepdim=True)
        is_one = largest.isfinite()
        shifted = values - largest.masked_fill(~is_one, 0.0)
        if dtype is torch.bfloat16:
            near = shifted.clamp(min=-_NOWHERE)
            weights = near.exp()
            mean = (weights * near).sum(dim=-1, keepdim=True) / weights.sum(dim=-1, keepdim=True)
            shifted -= mean.masked_fill_(~is_one, 0.0)
        rows_made[rows] = shifted
    return made
