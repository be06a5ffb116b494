"""The last layer of a language model: where it is found, and what tells it from another one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from edldist.errors import UnfitCodecError

__all__ = ["find_head", "head_digest", "logits_width"]

_READ_BYTES = 64 << 20


def head_digest(weight: Tensor, bias: Tensor | None = None) -> str:
    """What tells a head from another: shape and values, the same on every device and in every dtype that
    holds them.

    Of a head above 64 MiB it covers rows that are spread evenly, the first and the last among them, whole:
    training or fine-tuning changes them.

    Args:
        weight: float [V, D].
        bias: float [V], or None.

    Returns:
        32 hexadecimal digits.
    """
    rows, width = weight.shape
    digest = hashlib.blake2b(f"{rows} {width} {bias is not None}".encode(), digest_size=16)
    most = max(2, _READ_BYTES // (4 * max(1, width)))
    chosen = torch.arange(min(rows, most), device="cpu")
    if rows > most:
        chosen = chosen * (rows - 1) // (most - 1)
    for part in (weight, bias):
        if part is not None:
            read = part.detach()[chosen.to(part.device)].to(torch.float32).cpu().contiguous()
            digest.update(read.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def find_head(model: Any) -> tuple[Tensor, Tensor | None]:
    """The weight [V, D] and the bias [V] of a model's head.

    That is ``model.get_output_embeddings()``, as Hugging Face's models have it, or its attribute ``head`` or
    ``lm_head``: a linear layer.

    Raises:
        UnfitCodecError: there is none.
    """
    ask: Callable[[], Any] | None = getattr(model, "get_output_embeddings", None)
    found = [ask() if callable(ask) else None, getattr(model, "head", None), getattr(model, "lm_head", None)]
    head = next((each for each in found if each is not None), None)
    weight, bias = getattr(head, "weight", None), getattr(head, "bias", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2 or not weight.is_floating_point():
        what = "it has none of these" if head is None else f"what it has is a {type(head).__name__}"
        raise UnfitCodecError(
            f"codec hidden: the head of the model ({type(model).__name__}) is to be a linear layer with a "
            f"weight [vocabulary, width], at get_output_embeddings(), head or lm_head; {what}"
        )
    return weight, bias if isinstance(bias, Tensor) else None


def logits_width(model: Any) -> int | None:
    """How many classes the output ``logits`` of a model has, where it says so before it is called, as Hugging
    Face's do: by ``get_output_embeddings()``, or by ``num_labels`` of a class that is for classification."""
    ask: Callable[[], Any] | None = getattr(model, "get_output_embeddings", None)
    weight = getattr(ask() if callable(ask) else None, "weight", None)
    if isinstance(weight, Tensor) and weight.dim() == 2:
        return weight.shape[0]
    labels = getattr(model, "num_labels", None)
    known = callable(ask) and "Classification" in type(model).__name__ and isinstance(labels, int)
    return labels if known else None
