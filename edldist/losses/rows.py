"""Losses of rows of logits, a few rows at a time.

A loss of logits over V classes needs, on its way, several tensors as large as the logits: two softmaxes and
what autograd keeps of them. Here they exist for some rows only: each part's gradient is computed with its
loss, and only scaled on the way back. Where the logits are still to be made (``Projection``) not even their
gradient stands in memory: each part is computed once more on the way back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from edldist.errors import InputError
from edldist.losses.projection import Projection, project

__all__ = ["RowLoss", "Rows", "Student", "by_rows", "dtype_of", "flat_rows", "shape_of"]

Student = Tensor | Projection
"""A student's logits, float [..., V], or what makes them."""

RowLoss = Callable[..., Tensor]
"""Takes logits [n, V] in the dtype to compute in, and each constant's rows [n, ...]; gives losses [n]."""

# Logits at once. A megabyte stays in a processor's cache; an accelerator wants larger parts, and so do
# products, of which each goes through the whole weight.
_AT_ONCE_CPU, _AT_ONCE_PRODUCT, _AT_ONCE = 1 << 18, 1 << 23, 1 << 26


@dataclass(frozen=True, slots=True)
class Rows:
    """A loss of rows of logits that depends on each row alone.

    Attributes:
        of: gives losses [n] of logits [n, V] and of rows of the constants.
        constants: tensors [R, ...] that need no gradient, R all positions.
        dtype: in which ``of`` gets logits.
    """

    of: RowLoss
    constants: Sequence[Tensor]
    dtype: torch.dtype


def flat_rows(tensor: Tensor, leading: int) -> Tensor:
    """The tensor with its first ``leading`` dimensions as one."""
    return tensor.reshape(math.prod(tensor.shape[:leading]), *tensor.shape[leading:])


def shape_of(student: Student) -> torch.Size:
    """Of the logits: [..., V].

    Raises:
        InputError: they are none.
    """
    if isinstance(student, Projection):
        return torch.Size([*student.hidden.shape[:-1], student.head.vocabulary])
    if not isinstance(student, Tensor):
        raise InputError(f"the student's logits are {type(student).__name__}: give a tensor, or a Projection")
    return student.shape


def dtype_of(student: Student) -> torch.dtype:
    """To compute in: float64 for float64, else float32."""
    rows = student.hidden if isinstance(student, Projection) else student
    return torch.float64 if rows.dtype == torch.float64 else torch.float32


def by_rows(rows: Rows, student: Student) -> Tensor:
    """The loss of each position: [...] for logits [..., V].

    Differentiable once in the student, and logits by one call, of which more would need the graph to be
    retained; any number of times where there are few enough rows to take at once.
    """
    if isinstance(student, Projection):
        given, shared = student.hidden, student.head.parts
    else:
        given, shared = student, ()
    flat = flat_rows(given, given.ndim - 1)
    at_once = (_AT_ONCE_PRODUCT if shared else _AT_ONCE_CPU) if flat.is_cpu else _AT_ONCE
    at_once = max(1, at_once // shape_of(student)[-1])
    constants = [constant.detach() for constant in rows.constants]
    if flat.shape[0] <= at_once:
        losses = rows.of(_logits(flat, shared, rows.dtype), *constants)
    elif shared:
        losses = _Projected.apply(  # type: ignore[no-untyped-call]
            rows.of, at_once, rows.dtype, len(shared), flat, *shared, *constants
        )
    else:
        losses = _Given.apply(rows.of, at_once, rows.dtype, flat, *constants)  # type: ignore[no-untyped-call]
    return losses.reshape(given.shape[:-1])


def _logits(rows: Tensor, shared: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    return (project(rows, *shared) if shared else rows).to(dtype)


def _parts(rows: int, at_once: int) -> Iterator[slice]:
    for start in range(0, rows, at_once):
        yield slice(start, min(start + at_once, rows))


class _Given(torch.autograd.Function):
    """Of logits that are there."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        loss: RowLoss,
        at_once: int,
        dtype: torch.dtype,
        logits: Tensor,
        *constants: Tensor,
    ) -> Tensor:
        wanted: bool = ctx.needs_input_grad[3]  # type: ignore[attr-defined]
        grads = torch.empty_like(logits) if wanted else None
        losses = []
        for part in _parts(logits.shape[0], at_once):
            with torch.set_grad_enabled(wanted):
                rows = logits[part].detach().requires_grad_(wanted)
                each = loss(rows.to(dtype), *(constant[part] for constant in constants))
                if grads is not None:
                    (grads[part],) = torch.autograd.grad(each, rows, torch.ones_like(each))
            losses.append(each.detach())
        ctx.grads = grads  # type: ignore[attr-defined]
        return torch.cat(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads: Tensor | None = ctx.grads  # type: ignore[attr-defined]
        if grads is None:
            raise RuntimeError(
                "the gradient of an edldist loss was asked for twice: it is scaled in place, to hold none of "
                "the size of the logits besides. Add up the losses first, or compute the loss once more"
            )
        ctx.grads = None  # type: ignore[attr-defined]
        constants = len(ctx.needs_input_grad) - 4  # type: ignore[attr-defined]
        return None, None, None, grads.mul_(grad.unsqueeze(-1)), *(None,) * constants


class _Projected(torch.autograd.Function):
    """Of logits that are made from hidden states."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        loss: RowLoss,
        at_once: int,
        dtype: torch.dtype,
        n_shared: int,
        rows: Tensor,
        *others: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(rows, *others)
        ctx.how = (loss, at_once, dtype, n_shared)  # type: ignore[attr-defined]
        shared, constants = others[:n_shared], others[n_shared:]
        return torch.cat(
            [
                loss(_logits(rows[part], shared, dtype), *(constant[part] for constant in constants))
                for part in _parts(rows.shape[0], at_once)
            ]
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        loss, at_once, dtype, n_shared = ctx.how  # type: ignore[attr-defined]
        rows, *others = ctx.saved_tensors  # type: ignore[attr-defined]
        shared, constants = others[:n_shared], others[n_shared:]
        wanted = ctx.needs_input_grad[4 : 5 + n_shared]  # type: ignore[attr-defined]
        of_rows = torch.empty_like(rows) if wanted[0] else None
        # Many parts add up in one of these: in a dtype that does not round each time.
        of_shared = [
            torch.zeros_like(tensor, dtype=max(tensor.dtype, torch.float32, key=lambda d: d.itemsize))
            if want
            else None
            for tensor, want in zip(shared, wanted[1:], strict=True)
        ]
        for part in _parts(rows.shape[0], at_once):
            with torch.enable_grad():
                inputs = [
                    tensor.detach().requires_grad_(want)
                    for tensor, want in zip((rows[part], *shared), wanted, strict=True)
                ]
                losses = loss(
                    _logits(inputs[0], inputs[1:], dtype), *(constant[part] for constant in constants)
                )
                grads = iter(
                    torch.autograd.grad(
                        losses, [tensor for tensor in inputs if tensor.requires_grad], grad[part]
                    )
                )
            if of_rows is not None:
                of_rows[part] = next(grads)
            for total in of_shared:
                if total is not None:
                    total += next(grads)
        back = [
            None if total is None else total.to(tensor.dtype)
            for total, tensor in zip(of_shared, shared, strict=True)
        ]
        return (None, None, None, None, of_rows, *back, *(None for _ in constants))
