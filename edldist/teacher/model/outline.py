"""A model without its values: tells an error of the inputs' form from one of what they hold.

A model may refuse a call with any error it likes ("You have to specify either input_ids or inputs_embeds").
Whether each attempt would end so cannot be read off it. But the model's code can be run where no tensor has
values, on torch's meta device: what it raises there as well comes from its code and from the names, shapes
and types of its inputs, which are the same for every worker and every task.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["raises_without_values"]

# Others may come from a worker's machine, which a second attempt elsewhere does not meet: no memory, no such
# file, no such package, a device or a service that fails.
_OF_FORM = (AssertionError, AttributeError, LookupError, TypeError, ValueError)

_SAMPLES = (1, 64)


def raises_without_values(
    model: Any, positional: Sequence[Any], named: Mapping[str, Any], exc: Exception
) -> bool:
    """Whether a model raises an error whatever its inputs hold, and however many samples they are.

    Says so only if it is sure. It never is of a model that is no ``nn.Module``, or computes elsewhere than
    its inputs are, nor where an input is text, whose values cannot be taken away.

    Args:
        model: is not touched; its modules are copied, its weights are not.
        positional, named: what it was called with, samples first.
        exc: what it raised.
    """
    inputs = [*positional, *named.values()]
    if not (isinstance(exc, _OF_FORM) and isinstance(model, nn.Module)):
        return False
    if not all(isinstance(value, Tensor) and value.dim() for value in inputs):
        return False
    try:
        outline = _outline(model)
        if str(_raised(outline, positional, named, inputs[0].shape[0], type(exc))) != str(exc):
            return False
        others = [_raised(outline, positional, named, samples, type(exc)) for samples in _SAMPLES]
    except Exception:  # it cannot be copied, or its code needs values
        return False
    return all(_words(other) == _words(exc) for other in others)


def _outline(model: nn.Module) -> nn.Module:
    """A copy of a module in which tensors have shapes and no values. Large arrays are its own still."""
    instead: dict[int, Any] = {}
    for value in _values(model):
        if isinstance(value, Tensor):
            hollow = torch.empty_like(value, device="meta")
            instead[id(value)] = (
                nn.Parameter(hollow, requires_grad=False) if isinstance(value, nn.Parameter) else hollow
            )
        elif isinstance(value, np.ndarray):
            instead[id(value)] = value  # one may be mapped from a file that is larger than memory
    return copy.deepcopy(model, instead)


def _values(model: nn.Module) -> Iterator[Any]:
    """What may be large of a module: parameters, buffers, and attributes, in a list or a mapping too."""
    yield from model.parameters()
    yield from model.buffers()
    for module in model.modules():
        for value in vars(module).values():
            yield value
            if isinstance(value, Mapping):
                yield from value.values()
            elif isinstance(value, list | tuple):
                yield from value


def _raised(
    outline: nn.Module,
    positional: Sequence[Tensor],
    named: Mapping[str, Tensor],
    samples: int,
    kind: type[Exception],
) -> Exception | None:
    """What it raises for so many samples, if it is of a kind. Any other error gets through."""

    def hollow(tensor: Tensor) -> Tensor:
        return torch.empty((samples, *tensor.shape[1:]), dtype=tensor.dtype, device="meta")

    try:
        outline(*map(hollow, positional), **{name: hollow(tensor) for name, tensor in named.items()})
    except kind as exc:
        return exc
    return None


def _words(exc: Exception | None) -> str:
    """Its message, but for numbers: it may say how many samples there were."""
    return "" if exc is None else f"{type(exc).__qualname__}: {re.sub(r'[0-9]+', '0', str(exc))}"
