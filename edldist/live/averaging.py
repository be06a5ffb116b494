"""Gradients of all ranks, averaged in one collective together with who is asked to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from edldist.ranks.placement import placement

__all__ = ["average_gradients"]


def average_gradients(parameters: Sequence[Tensor], asked: bool, wait: Callable[[Any], None]) -> int:
    """Replace each gradient by its mean over the ranks, as ``DistributedDataParallel`` does.

    A parameter that has a gradient on some ranks gets one on all of them; what has none keeps none. Nothing
    is changed before all of it has come.

    Args:
        parameters: the same ones on every rank, in the same order.
        asked: whether this rank was asked to stop.
        wait: for an operation; raises where the group has changed.

    Returns:
        How many ranks were asked to stop.
    """
    world = placement().world_size
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        kinds.setdefault(parameter.dtype, []).append(parameter)
    # Whoever has a gradient, and is asked, counts 1 in float32: exact for as many ranks as there can be.
    marks = torch.tensor([float(asked), *(float(p.grad is not None) for p in parameters)], device="cpu")
    flats = [_flat(group) for group in kinds.values()]
    operations = [dist.all_reduce(flat, async_op=True) for flat in (marks, *flats)]
    for operation in operations:
        wait(operation)
    has = dict(zip(map(id, parameters), marks[1:].tolist(), strict=True))
    for flat, group in zip(flats, kinds.values(), strict=True):
        _put_back(flat.div_(world), group, has)
    return int(marks[0].item())


def _flat(parameters: Sequence[Tensor]) -> Tensor:
    """Their gradients one after the other, on the host; zeros for those that have none."""
    flat = torch.zeros(sum(p.numel() for p in parameters), dtype=parameters[0].dtype, device="cpu")
    at = 0
    for parameter in parameters:
        if parameter.grad is not None:
            flat[at : at + parameter.numel()].copy_(parameter.grad.detach().reshape(-1))
        at += parameter.numel()
    return flat


def _put_back(flat: Tensor, parameters: Sequence[Tensor], has: dict[int, float]) -> None:
    at = 0
    for parameter in parameters:
        if has[id(parameter)]:
            mean = flat[at : at + parameter.numel()].view(parameter.shape)
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
            parameter.grad.detach().copy_(mean)
        at += parameter.numel()
