"""One right candidate among many."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edldist.errors import InputError
from edldist.losses.checks import check_ids, check_mask, checked_temperature
from edldist.losses.reduction import Reduction, check_reduction, reduce

__all__ = ["contrastive"]


def contrastive(
    student_scores_BN: Tensor,
    positive_B: Tensor,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    count: Tensor | float | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Make the student give the right candidate of each row a higher score than all others.

    ``-log(exp(s_p / T) / sum_n exp(s_n / T))``, p the right one (van den Oord et al., "Representation
    Learning with Contrastive Predictive Coding", 2018; over the passages of all ranks, as RocketQA's
    cross-batch negatives, Qu et al., 2021). The candidates may be those of all ranks (``gather_rows``).

    Args:
        student_scores_BN: float [B, N], or any leading dimensions; a query's scores of N candidates.
        positive_B: integers [B], the place of the right one in each row.
        temperature: T, from 1e-6 to 1e6; there is no factor of T² as there is no distribution to match.
        mask: bool [B, N], true where a candidate counts. Others are left out, whatever their scores hold:
            padding, and *false negatives*, which answer the query as well as the right one does. A row
            without any that counts has loss 0.
        count: what ``"mean"`` divides by instead of the number of rows that count here: ``mean_count`` of
            them where ranks train together and have different numbers of them.
        reduction: ``"mean"`` over the rows that count, ``"sum"``, or ``"none"``.

    Returns:
        Scalar, or [B] with ``"none"``; float32, or float64 where the scores are float64.

    Raises:
        InputError: shapes, dtypes or devices do not fit; on the CPU also: the place of a right one is
            outside its row, or the mask leaves it out where others count.
        ConfigError: ``temperature``, ``count`` or ``reduction`` is out of range.
    """
    check_reduction("contrastive", reduction, count)
    temperature = checked_temperature("contrastive", temperature)
    scores = _checked_scores(student_scores_BN)
    positive = _checked_positive(scores, positive_B)
    rows = None
    if mask is not None:
        check_mask("contrastive", "scores", scores.shape, scores.device, mask)
        rows = mask.any(dim=-1)
        _check_places(positive, scores.shape[-1], rows)
        positive = positive.masked_fill(~rows, 0)
        _check_that_it_counts(mask, positive, rows)
        # The lowest finite score, not -inf: a row of which nothing counts is then uniform, without gradient.
        lowest = torch.finfo(scores.dtype).min * min(1.0, temperature)
        scores = scores.masked_fill(~mask, lowest)
    else:
        _check_places(positive, scores.shape[-1], None)
    logs = F.log_softmax(scores / temperature, dim=-1)
    each = -logs.gather(-1, positive.unsqueeze(-1)).squeeze(-1)
    if rows is not None:
        each = each.masked_fill(~rows, 0.0)
    return reduce(each, reduction, rows, count)


def _checked_scores(scores: Tensor) -> Tensor:
    """In the dtype to compute in."""
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        found = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise InputError(f"losses.contrastive: the scores are {found}: they must be a floating-point tensor")
    if scores.ndim == 0 or scores.shape[-1] == 0:
        raise InputError(f"losses.contrastive: scores of shape {list(scores.shape)} have no candidates")
    return scores if scores.dtype == torch.float64 else scores.float()


def _checked_positive(scores: Tensor, positive: Tensor) -> Tensor:
    if not isinstance(positive, Tensor) or positive.dtype == torch.bool or positive.is_floating_point():
        found = positive.dtype if isinstance(positive, Tensor) else type(positive).__name__
        raise InputError(
            f"losses.contrastive: positive is {found}: pass the place of the right candidate of each row as "
            "an integer"
        )
    if positive.shape != scores.shape[:-1] or positive.device != scores.device:
        raise InputError(
            f"losses.contrastive: positive has shape {list(positive.shape)} on {positive.device}, but scores "
            f"of shape {list(scores.shape)} on {scores.device} want {list(scores.shape[:-1])} there"
        )
    return positive.to(torch.int64)


def _check_places(positive: Tensor, candidates: int, rows: Tensor | None) -> None:
    advice = "Leave out a row without a right one: by a mask in which none of its candidates counts"
    among = "of its row's {} candidates"
    check_ids("contrastive", "positive", positive, candidates, rows, among=among, advice=advice)


def _check_that_it_counts(mask: Tensor, positive: Tensor, rows: Tensor) -> None:
    """Where that waits for no device."""
    if not mask.is_cpu:
        return
    wrong = (~mask.gather(-1, positive.unsqueeze(-1)).squeeze(-1) & rows).nonzero().tolist()
    if wrong:
        at = wrong[0]
        raise InputError(
            f"losses.contrastive: the mask leaves out candidate {int(positive[tuple(at)])} of row {at}, "
            f"which is the right one (so in {len(wrong)} rows): let it count, or leave out the whole row"
        )
