"""The order of two items at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edldist.losses.checks import check_mask, checked_pair, checked_temperature
from edldist.losses.formulas import scale
from edldist.losses.reduction import Reduction, check_reduction, reduce

__all__ = ["pairwise"]


def pairwise(
    student_scores_BL: Tensor,
    teacher_scores_BL: Tensor,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Make the student prefer one item to another as surely as the teacher does, for all pairs of a list.

    ``T² * KL(p_ij || q_ij)``, averaged over the pairs i < j of a list, with the chance that i comes before j
    ``p_ij = sigmoid((t_i - t_j) / T)`` by the teacher and q_ij by the student (RankNet, Burges et al.,
    "Learning to Rank Using Gradient Descent", 2005, with the teacher's chances in place of 0 and 1). It
    differs from RankNet's cross-entropy by the entropy of p, which has no gradient, and so reaches 0 where
    all differences are the teacher's. Unlike ``ranking`` it cares for the tail of a list as much as for its
    head.

    Args:
        student_scores_BL: float [B, L], or any leading dimensions.
        teacher_scores_BL: the same shape, on the student's device.
        temperature: T, from 1e-6 to 1e6; lower makes the order count, and not by how much.
        mask: bool, the same shape, true where there is an item. Others are left out, whatever their
            scores hold.
        reduction: ``"mean"`` over the lists that hold two items, ``"sum"``, or ``"none"``. A list of
            fewer has loss 0.

    Returns:
        Scalar, or [B] with ``"none"``; float32, or float64 where an input is float64.

    Raises:
        InputError: shapes, dtypes or devices do not fit.
        ConfigError: ``temperature`` or ``reduction`` is out of range.
    """
    check_reduction("pairwise", reduction)
    temperature = checked_temperature("pairwise", temperature)
    student, teacher = checked_pair("pairwise", "scores", student_scores_BL, teacher_scores_BL)
    length = student.shape[-1]
    first, second = torch.triu_indices(length, length, 1, device=student.device)
    if mask is not None:
        check_mask("pairwise", "scores", student.shape, student.device, mask)
        student, teacher = student.masked_fill(~mask, 0.0), teacher.masked_fill(~mask, 0.0)
    ours, theirs = (scale(side[..., first] - side[..., second], temperature) for side in (student, teacher))
    before, after = (
        (sign * theirs).sigmoid() * (F.logsigmoid(sign * theirs) - F.logsigmoid(sign * ours))
        for sign in (1.0, -1.0)
    )
    each = (temperature**2 * (before + after)).to(student.dtype)
    if mask is None:
        lists = each.sum(dim=-1) / max(1, len(first))
        held = None if length > 1 else torch.zeros(lists.shape, dtype=torch.bool, device=lists.device)
        return reduce(lists, reduction, held)
    pairs = mask[..., first] & mask[..., second]
    lists = each.masked_fill(~pairs, 0.0).sum(dim=-1) / pairs.sum(dim=-1).clamp(min=1)
    return reduce(lists, reduction, pairs.any(dim=-1))
