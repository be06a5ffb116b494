"""Every value of every output, optionally as another float type."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edldist.errors import CodecError
from edldist.labels.grammar import CodecSpec

__all__ = ["Dense"]

_FLOATS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Dense:
    """``dense`` keeps dtypes; ``dense:fp32|fp16|bf16`` casts floating-point outputs.

    Labels are delivered in the dtype that travelled; the losses compute in float32.

    Args:
        dtype: ``fp32``, ``fp16`` or ``bf16``; None keeps what the model returns.
    """

    def __init__(self, dtype: str | None = None) -> None:
        self._dtype = None if dtype is None else _FLOATS[dtype]
        self.spec = CodecSpec("dense", {} if dtype is None else {"dtype": dtype})

    def encode(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.check(outputs)
        return self.pack(outputs)

    def pack(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        dtype = self._dtype
        if dtype is None:
            return dict(outputs)
        return {
            name: tensor.to(dtype) if tensor.is_floating_point() else tensor
            for name, tensor in outputs.items()
        }

    def check(self, outputs: Mapping[str, Tensor]) -> None:
        if self._dtype is not torch.float16:
            return
        for name, tensor in outputs.items():
            if tensor.is_floating_point() and tensor.dtype is not torch.float16 and tensor.itemsize > 1:
                self._check_range(name, tensor)

    def decode(self, packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(packed)

    def _check_range(self, name: str, tensor: Tensor) -> None:
        finite = tensor[tensor.isfinite()]
        if finite.numel() and finite.abs().max() > torch.finfo(torch.float16).max:
            raise CodecError(
                f"output {name!r} has values up to {finite.abs().max().item():.3g}, beyond fp16's 65504; "
                "use dense:bf16 or dense:fp32"
            )
