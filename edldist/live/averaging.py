"""Gradients of all ranks, averaged together with what each of them has heard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from edldist.ranks.placement import placement

__all__ = ["Heard", "average_gradients"]


class Heard(NamedTuple):
    """How many ranks have heard of something.

    Attributes:
        asked: that they are to stop.
        waiting: that ranks want to join.
    """

    asked: int
    waiting: int


def average_gradients(parameters: Sequence[Tensor], asked: bool, waiting: bool) -> Heard:
    """Replace each gradient by its mean over the ranks, as ``DistributedDataParallel`` does.

    A parameter that has a gradient on some ranks gets one on all of them; what has none keeps none. Nothing
    is changed before all of it has come.

    Args:
        parameters: the same ones on every rank, in the same order.
        asked, waiting: whether this rank was asked to stop, and whether it heard of ranks that want to join.

    Raises:
        RegroupError: the group has changed, where it is a live one.
    """
    world = placement().world_size
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        kinds.setdefault(parameter.dtype, []).append(parameter)
    # Each rank counts 1 in float32: exact for as many ranks as there can be.
    has = [asked, waiting, *(p.grad is not None for p in parameters)]
    marks = torch.tensor(has, dtype=torch.float32, device="cpu")
    flats = [_flat(group) for group in kinds.values()]
    operations = [dist.all_reduce(flat, async_op=True) for flat in (marks, *flats)]
    for operation in operations:
        operation.wait()
    graded = dict(zip(map(id, parameters), marks[2:].tolist(), strict=True))
    for flat, group in zip(flats, kinds.values(), strict=True):
        _put_back(flat.div_(world), group, graded)
    return Heard(int(marks[0].item()), int(marks[1].item()))


def _flat(parameters: Sequence[Tensor]) -> Tensor:
    """Their gradients one after the other, on the host; zeros for those that have none."""
    flat = torch.zeros(sum(p.numel() for p in parameters), dtype=parameters[0].dtype, device="cpu")
    at = 0
    for parameter in parameters:
        if parameter.grad is not None:
            flat[at : at + parameter.numel()].copy_(parameter.grad.detach().reshape(-1))
        at += parameter.numel()
    return flat


def _put_back(flat: Tensor, parameters: Sequence[Tensor], graded: dict[int, float]) -> None:
    at = 0
    for parameter in parameters:
        if graded[id(parameter)]:
            mean = flat[at : at + parameter.numel()].view(parameter.shape)
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
            parameter.grad.detach().copy_(mean)
        at += parameter.numel()
