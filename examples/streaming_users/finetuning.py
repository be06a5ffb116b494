"""Fine-tuning one network to each of many users at once, which is what there is without meta-learning."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, vmap

from examples.streaming_users.data import SUPPORT
from examples.streaming_users.models import Student

__all__ = ["finetuned"]


@torch.no_grad()
def finetuned(model: Student, new: dict[str, Tensor], steps: int, rate: float) -> Tensor:
    """Logits of clicks on what is asked for, float32 [B, Q], each user's from an own copy of the network.

    Args:
        model: one that adapts to nobody (0 steps).
        new: users as ``data.users`` makes them, of whom the first ``SUPPORT`` clicks are known.
        steps, rate: of gradient descent on the cross-entropy of these clicks, over all weights.
    """
    common = {name: value.detach() for name, value in model.named_parameters()}

    def of_one(items: Tensor, clicks: Tensor, query: Tensor) -> Tensor:
        def loss(weights: dict[str, Tensor]) -> Tensor:
            logits: Tensor = functional_call(model, weights, (items[None], clicks[None], items[None]))
            return F.binary_cross_entropy_with_logits(logits[0], clicks)

        own = common
        for _ in range(steps):
            slopes = grad(loss)(own)
            own = {name: value - rate * slopes[name] for name, value in own.items()}
        logits: Tensor = functional_call(model, own, (items[None], clicks[None], query[None]))
        return logits[0]

    found: Tensor = vmap(of_one)(new["items"][:, :SUPPORT], new["clicks"][:, :SUPPORT], new["query"])
    return found
