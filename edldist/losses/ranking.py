"""The order of lists."""

from __future__ import annotations

import torch
from torch import Tensor

from edldist.losses.checks import check_mask, checked_pair, checked_temperature
from edldist.losses.formulas import softened_kl
from edldist.losses.reduction import Reduction, check_reduction, reduce

__all__ = ["ranking"]


def ranking(
    student_scores_BL: Tensor,
    teacher_scores_BL: Tensor,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Make the student order each list as the teacher does.

    ``T² * KL(softmax(teacher / T) || softmax(student / T))`` over the items of a list: the top-one
    probabilities of ListNet (Cao et al., "Learning to Rank: From Pairwise Approach to Listwise
    Approach", 2007), with the temperature of Hinton et al. (2015). It differs from ListNet's cross
    entropy by the teacher's own entropy, which has no gradient, and so reaches 0 at a perfect match.

    Args:
        student_scores_BL: float [B, L], or any leading dimensions.
        teacher_scores_BL: the same shape, on the student's device.
        temperature: T, from 1e-6 to 1e6; lower sharpens both distributions towards the top of the list.
        mask: bool, the same shape, true where there is an item. Others are left out, whatever
            their scores hold.
        reduction: ``"mean"`` over the lists that hold an item, ``"sum"``, or ``"none"``. An empty
            list has loss 0.

    Returns:
        Scalar, or [B] with ``"none"``; float32, or float64 where an input is float64.

    Raises:
        InputError: shapes, dtypes or devices do not fit.
        ConfigError: ``temperature`` or ``reduction`` is out of range.
    """
    check_reduction("ranking", reduction)
    temperature = checked_temperature("ranking", temperature)
    student, teacher = checked_pair("ranking", "scores", student_scores_BL, teacher_scores_BL)
    if mask is None:
        return reduce(softened_kl(student, teacher, temperature), reduction)
    check_mask("ranking", "scores", student.shape, student.device, mask)
    # The lowest finite score, not -inf: a list without any item is then uniform on both sides,
    # with loss 0 and gradient 0, where -inf would give NaN.
    lowest = torch.finfo(student.dtype).min * min(1.0, temperature)
    student, teacher = student.masked_fill(~mask, lowest), teacher.masked_fill(~mask, lowest)
    return reduce(softened_kl(student, teacher, temperature), reduction, mask.any(dim=-1))
