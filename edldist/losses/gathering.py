"""Rows of all ranks on every rank, with gradients to where they came from."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from edldist.errors import InputError
from edldist.lifecycle import exit_hooks
from edldist.ranks.placement import in_process_group, placement

__all__ = ["GatheredRows", "gather_rows"]

_MOST_DIMS = 8
_DTYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


class GatheredRows(NamedTuple):
    """What ``gather_rows`` returns.

    Attributes:
        rows: [N, ...], of rank 0, then of rank 1, and so on.
        begin: where this rank's own begin among them.
    """

    rows: Tensor
    begin: int


def gather_rows(rows: Tensor) -> GatheredRows:
    """The rows of all ranks, in the order of the ranks: candidates of a ``contrastive`` loss, say.

    Each rank computes the loss of *its own* queries against the rows of all. On the way back a row gets the
    sum of what all ranks' losses say of it; so if ranks average their gradients, as DDP and FSDP do, they
    have that of the mean of their losses: what one process with the whole batch would have, without a factor
    of the number of ranks. (A loss that all ranks compute of *all* queries would come out as many times too
    large as there are ranks.) Unlike ``torch.distributed.nn.functional.all_gather`` ranks may have different
    numbers of rows, also none, and ranks whose rows do not fit are named, where that one hangs or mixes them
    up.

    A collective call, and where rows have a gradient another one in ``backward``: every rank of the default
    group has to make them, in the same order. Alone, they are the rows themselves.

    Args:
        rows: [b, ...], float with or without a gradient, integers or bool; the same dtype and trailing shape
            on all ranks.

    Raises:
        InputError: they are no tensor with rows, or dtypes, trailing shapes or gradients differ among ranks;
            on all of them.
    """
    if not isinstance(rows, Tensor) or rows.ndim == 0:
        found = "a number" if isinstance(rows, Tensor) else f"a {type(rows).__name__}"
        raise InputError(f"losses.gather_rows: {found} has no rows: pass a tensor [b, ...]")
    if rows.dtype not in _DTYPES or rows.ndim > _MOST_DIMS:
        raise InputError(
            f"losses.gather_rows: rows of {rows.dtype} with {rows.ndim} dimensions cannot be gathered: at "
            f"most {_MOST_DIMS}, and one of {', '.join(str(dtype) for dtype in _DTYPES)}"
        )
    here = placement()
    if not in_process_group() or here.world_size == 1:
        return GatheredRows(rows, 0)
    exit_hooks.install()
    counts = _agreed_counts(rows)
    gathered: Tensor = _Gather.apply(rows, counts, here.rank)  # type: ignore[no-untyped-call]
    return GatheredRows(gathered, sum(counts[: here.rank]))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int], rank: int) -> Tensor:
        ctx.counts, ctx.rank = counts, rank
        if not max(counts):
            return rows.detach().clone()
        own = rows.detach().new_zeros(max(counts), *rows.shape[1:], device=_device(rows))
        own[: len(rows)] = rows.detach()
        parts = [torch.empty_like(own) for _ in counts]
        # As bytes: a backend need not know bool or half precision.
        dist.all_gather([_as_bytes(part) for part in parts], _as_bytes(own))
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]).to(rows.device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        total = grad.to(_device(grad), torch.promote_types(grad.dtype, torch.float32), copy=True).contiguous()
        if len(total):
            dist.all_reduce(total)
        begin = sum(ctx.counts[: ctx.rank])
        return total[begin : begin + ctx.counts[ctx.rank]].to(grad.device, grad.dtype), None, None


def _agreed_counts(rows: Tensor) -> list[int]:
    """How many rows each rank has.

    Raises:
        InputError: what they are is not the same on all ranks.
    """
    told = [len(rows), _DTYPES.index(rows.dtype), int(_wants_gradient(rows)), rows.ndim, *rows.shape[1:]]
    own = torch.tensor(told + [0] * (_MOST_DIMS + 3 - len(told)), device=_device(rows))
    parts = [torch.empty_like(own) for _ in range(placement().world_size)]
    dist.all_gather(parts, own)
    all_told: list[list[int]] = [part.tolist() for part in parts]
    for rank, other in enumerate(all_told):
        if other[1:] != all_told[0][1:]:
            raise InputError(
                f"losses.gather_rows: rank {rank} has {_in_words(other)}, and rank 0 "
                f"{_in_words(all_told[0])}: only the number of rows may differ"
            )
    return [other[0] for other in all_told]


def _in_words(told: list[int]) -> str:
    _, dtype, gradient, ndim, *trailing = told
    shape = ", ".join(["b", *(str(size) for size in trailing[: ndim - 1])])
    return f"{_DTYPES[dtype]} [{shape}] with{'' if gradient else 'out'} a gradient"


def _wants_gradient(rows: Tensor) -> bool:
    return rows.requires_grad and torch.is_grad_enabled()


def _as_bytes(tensor: Tensor) -> Tensor:
    return tensor.view(-1).view(torch.uint8)


def _device(tensor: Tensor) -> torch.device:
    """Where the group's backend can take it from."""
    if tensor.is_cpu and "gloo" not in str(dist.get_backend_config()):
        accelerator = torch.accelerator.current_accelerator()
        assert accelerator is not None
        return accelerator
    return tensor.device
