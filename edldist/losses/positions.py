"""From losses of rows to the loss of a batch: which positions count, and what their sum is divided by."""

from __future__ import annotations

import math

from torch import Tensor

from edldist.losses.checks import check_mask
from edldist.losses.projection import Projection
from edldist.losses.reduction import Reduction, check_reduction, reduce
from edldist.losses.rows import RowLoss, Rows, Student, by_rows

__all__ = ["reduced"]


def reduced(
    loss: str,
    student: Student,
    rows: Rows,
    mask: Tensor | None,
    count: Tensor | float | None,
    reduction: Reduction,
) -> Tensor:
    """The loss of all positions that count.

    Raises:
        InputError: the mask or the count does not fit.
        ConfigError: there is no such reduction, or no use for the count.
    """
    check_reduction(loss, reduction, count)
    if mask is not None:
        given = student.hidden if isinstance(student, Projection) else student
        check_mask(loss, "positions", given.shape[:-1], given.device, mask)
        flat = mask.reshape(math.prod(mask.shape))
        rows = Rows(_where_it_counts(rows.of), [flat, *rows.constants], rows.dtype)
    return reduce(by_rows(rows, student), reduction, mask, count)


def _where_it_counts(of: RowLoss) -> RowLoss:
    """0 elsewhere, whatever is there, NaN and ids that do not exist included."""

    def masked(logits: Tensor, counts: Tensor, *constants: Tensor) -> Tensor:
        out = ~counts
        told = [
            tensor.masked_fill(out.view(-1, *(1,) * (tensor.ndim - 1)), 0) for tensor in (logits, *constants)
        ]
        return of(*told).masked_fill(out, 0.0)

    return masked
