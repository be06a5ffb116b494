"""Heads that turn hidden states into logits, applied where logits are needed, a few rows at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from edldist.errors import InputError
from edldist.labels.head import head_digest

__all__ = ["Head", "Projection", "project"]


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A linear layer from hidden states to logits: ``hidden @ weight.T + bias``.

    Make that of a teacher once, not in each step: it is compared with the one that its labels come from.

    Attributes:
        weight: float [V, D].
        bias: float [V], or None.
    """

    weight: Tensor
    bias: Tensor | None = None
    _digest: list[str] = field(default_factory=list, init=False, repr=False)

    @property
    def digest(self) -> str:
        """What tells it from another one. Waits for the device, the first time."""
        if not self._digest:
            self._digest.append(head_digest(self.weight, self.bias))
        return self._digest[0]

    def __post_init__(self) -> None:
        weight, bias = self.weight, self.bias
        if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point():
            shown = list(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
            raise InputError(
                f"a head's weight is {shown}: it must be a floating point tensor [vocabulary, D]"
            )
        if bias is not None and bias.shape != weight.shape[:1]:
            raise InputError(
                f"a head's bias has shape {list(bias.shape)}, its weight {list(weight.shape)}: they must "
                f"agree, so the bias must be [{weight.shape[0]}]"
            )

    @property
    def vocabulary(self) -> int:
        return self.weight.shape[0]

    @property
    def parts(self) -> tuple[Tensor, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """A student's logits that are not made yet: the losses take it in place of them.

    Gradients flow to all three. The product is made in the dtype of ``hidden``, as autocast would make it.

    Attributes:
        hidden: float [..., D].
        weight: float [V, D], as of an ``nn.Linear``.
        bias: float [V], or None.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None

    def __post_init__(self) -> None:
        width = Head(self.weight, self.bias).weight.shape[1]
        if self.hidden.ndim == 0 or self.hidden.shape[-1] != width:
            raise InputError(
                f"hidden states of shape {list(self.hidden.shape)} do not fit a head of shape "
                f"{list(self.weight.shape)}: their last dimension must be {width}"
            )

    @property
    def head(self) -> Head:
        return Head(self.weight, self.bias)


def project(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Logits, in the dtype of ``hidden``, whatever autocast says."""
    with torch.autocast(hidden.device.type, enabled=False):
        return F.linear(hidden, weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype))
