"""Which ids a language model takes, and how many: what is outside is named before it meets the model.

A model would say ``index out of range in self``; on an accelerator it would take the whole process along.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edldist.errors import ContractError
from edldist.labels.places import Where

__all__ = [
    "INPUT_IDS",
    "context_of",
    "refuse_no_integers",
    "refuse_outside",
    "refuse_outside_any",
    "vocabulary_of",
]

_INTEGERS = (torch.int64, torch.int32)
_NO_INTEGERS = "argument #1 'indices' to have one of the following scalar types: Long, Int"
"""What torch says of an embedding's input that is of another dtype."""

INPUT_IDS = ("input_ids", "decoder_input_ids")
"""Inputs that go into the embedding of ``get_input_embeddings()``, as Hugging Face's models call them."""


def context_of(model: Any) -> int | None:
    """The most tokens of a sequence, where the model's config says so.

    RoBERTa and its kin count positions from behind the one that padding has: an embedding of 514 positions
    holds 512 tokens.
    """
    most = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        return None
    for name, module in _embeddings(model):
        padding = module.padding_idx
        if name.rpartition(".")[2] == "position_embeddings" and padding is not None:
            return max(1, min(most, module.num_embeddings) - padding - 1)
    return most


def vocabulary_of(model: Any) -> int | None:
    """How many ids a model has embeddings for; None if it has no ``get_input_embeddings()``."""
    ask = getattr(model, "get_input_embeddings", None)
    if not callable(ask):
        return None
    try:
        weight = getattr(ask(), "weight", None)
    except NotImplementedError:  # of a model without tokens, as transformers has it
        return None
    return weight.shape[0] if isinstance(weight, Tensor) and weight.dim() == 2 else None


def refuse_outside(path: str, inputs: Mapping[str, Tensor], vocabulary: int, where: Where) -> None:
    """Check ids that go into the model's embedding.

    Args:
        path: of the model.
        inputs: on the host, rows first.
        where: what a row of them is called.

    Raises:
        ContractError: one is no entry.
    """
    for name in INPUT_IDS:
        ids = inputs.get(name)
        if ids is not None and _is_ids(ids):
            _refuse(path, name, ids, vocabulary, where, f"its embedding has {vocabulary:,} entries")


def refuse_outside_any(model: Any, path: str, inputs: Mapping[str, Tensor], where: Where) -> None:
    """After a model raised: look for an integer that no embedding of it has.

    Raises:
        ContractError: there is one.
    """
    largest = max((module.num_embeddings for _, module in _embeddings(model)), default=0)
    if not largest:
        return
    for name, ids in inputs.items():
        if _is_ids(ids):
            _refuse(path, name, ids, largest, where, f"its largest embedding has {largest:,} entries")


def refuse_no_integers(path: str, inputs: Mapping[str, Tensor], exc: BaseException | None) -> None:
    """After a model raised: say which of its inputs an embedding cannot look up, if that is what went wrong.

    Raises:
        ContractError: it is.
    """
    if not (isinstance(exc, RuntimeError) and _NO_INTEGERS in str(exc)):
        return
    wrong = {name: tensor for name, tensor in inputs.items() if tensor.dtype not in _INTEGERS}
    if wrong:
        sent = ", ".join(f"{name} {_dtype(tensor)}{list(tensor.shape)}" for name, tensor in wrong.items())
        raise ContractError(
            f"model {path} looks token ids up in an embedding, and these are no int64 or int32: {sent}. "
            "Send ids as integers, as .long() makes them, from where batches are made"
        )


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _is_ids(tensor: Tensor) -> bool:
    return tensor.dtype in _INTEGERS and tensor.numel() > 0


def _refuse(path: str, name: str, ids: Tensor, vocabulary: int, where: Where, has: str) -> None:
    least, most = torch.aminmax(ids)
    if int(least) >= 0 and int(most) < vocabulary:
        return
    outside = ((ids < 0) | (ids >= vocabulary)).nonzero()
    at = outside[0].tolist()
    raise ContractError(
        f"{name}: {int(ids[tuple(at)])} at {where(at)} is no token of model {path}: {has}, for ids from 0 to "
        f"{vocabulary - 1:,} (so are {outside.shape[0]} of {ids.numel()}). Is that the tokenizer of this "
        "model? Padding is no token either: leave it out by a mask, or fill it with any id"
    )


def _embeddings(model: Any) -> Iterator[tuple[str, nn.Embedding]]:
    if isinstance(model, nn.Module):
        yield from ((n, module) for n, module in model.named_modules() if isinstance(module, nn.Embedding))
