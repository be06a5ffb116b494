"""From the losses of positions to one number."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from edldist.errors import ConfigError, InputError
from edldist.lifecycle import exit_hooks
from edldist.losses.checks import check_mask, is_number
from edldist.ranks.placement import in_process_group, placement

__all__ = ["Reduction", "check_reduction", "masked", "mean_count", "reduce"]

Reduction = Literal["mean", "sum", "none"]

_REDUCTIONS = ("mean", "sum", "none")


def mean_count(mask: Tensor) -> Tensor:
    """How many positions count on a rank, on average over all ranks: ``count`` of the losses.

    Ranks that average their gradients, as DDP and FSDP do, then divide the sum over all positions of all
    ranks by their number; each rank's own mean would weigh a position more where there are few of them. A
    collective call: every rank of the default group has to make it. Alone, it is the number of true
        positions.

    Args:
        mask: bool [...], true where a position counts.

    Returns:
        float32 scalar, on the mask's device.

    Raises:
        InputError: the mask is no bool tensor.
    """
    check_mask("mean_count", "positions", mask.shape, mask.device, mask)
    count = mask.sum(dtype=torch.float32)
    world_size = placement().world_size if in_process_group() else 1
    if world_size > 1:
        exit_hooks.install()
        home = count.device
        if home.type == "cpu" and "gloo" not in str(dist.get_backend_config()):
            count = count.to(torch.accelerator.current_accelerator())
        dist.all_reduce(count)
        count = (count / world_size).to(home)
    return count


def masked(loss: str, mask: Tensor | None, dim: int, *sides: Tensor) -> tuple[Tensor, ...]:
    """Both sides with 0 where a position does not count."""
    if mask is None:
        return sides
    shape = list(sides[0].shape)
    del shape[dim]
    check_mask(loss, "positions", torch.Size(shape), sides[0].device, mask)
    return tuple(side.masked_fill(~mask.unsqueeze(dim), 0.0) for side in sides)


def reduce(
    loss: Tensor, reduction: Reduction, mask: Tensor | None = None, count: Tensor | float | None = None
) -> Tensor:
    """Reduce a loss that is 0 where the mask is false; each of its positions may have several values.

    Args:
        count: what to divide by under ``"mean"``; None: by the number of values that count.
    """
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if count is not None:
        total = loss.sum()
        return total / torch.as_tensor(count, dtype=loss.dtype, device=loss.device).clamp(
            min=torch.finfo(loss.dtype).tiny
        )
    if mask is None:
        return loss.sum() / max(1, loss.numel())
    each = loss.numel() // max(1, mask.numel())
    return loss.sum() / (mask.sum() * each).clamp(min=1)


def check_reduction(loss: str, reduction: str, count: Tensor | float | None = None) -> None:
    """Raises:
    ConfigError: the reduction is unknown, or has no use for a count, or the count is no number.
    InputError: the count is a tensor of several.
    """
    if reduction not in _REDUCTIONS:
        raise ConfigError(f"losses.{loss}: reduction={reduction!r} is unknown: use one of {_REDUCTIONS}")
    if count is None:
        return
    if reduction != "mean":
        raise ConfigError(f"losses.{loss}: count has no use with reduction={reduction!r}: leave it out")
    if isinstance(count, Tensor):
        if count.ndim != 0:
            raise InputError(
                f"losses.{loss}: count has shape {list(count.shape)}: one number, as mean_count gives"
            )
    elif not is_number(count) or not 0 < count < math.inf:
        raise ConfigError(
            f"losses.{loss}: count={count!r} must be a finite number above 0, as mean_count gives"
        )
