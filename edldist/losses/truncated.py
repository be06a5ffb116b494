"""What to do with the probability that truncated labels leave out: give it to the true token."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from edldist.errors import ConfigError
from edldist.labels.typed import TopKLabels
from edldist.losses.checks import check_ids, checked_target
from edldist.losses.formulas import softened
from edldist.losses.positions import reduced
from edldist.losses.projection import Projection
from edldist.losses.reduction import Reduction
from edldist.losses.rows import Rows, Student, dtype_of, flat_rows, shape_of
from edldist.losses.support import check_labels

__all__ = ["residual_to_gold"]

_IGNORE_INDEX = -100


def residual_to_gold(
    student_logits: Student,
    labels: TopKLabels,
    target: Tensor,
    *,
    mask: Tensor | None = None,
    count: Tensor | float | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy with the kept probabilities, and with the true token for all that were not kept.

    ``-sum over kept (p_k * log q_k) - tail * log q_target``: a cheap mend for truncated labels, by which a
    student does not learn to make the kept tokens too probable ("Sparse Logit Sampling", Anshumann et al.,
    arXiv 2503.16870, where it stands beside drawn labels). It is biased towards the text that it is trained
    on, as training on the text is.

    Args:
        student_logits: float [..., V], or a ``Projection``.
        labels: of codec ``topk`` or ``topp``; their temperature is that of both sides.
        target: indices of the true tokens, integers [...]; -100: the position does not count.
        mask: bool [...], true where a position counts; None for all.
        count: see ``forward_kl``. The mean is over positions that the mask lets count, those with target -100
            included, which add 0.
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Returns:
        Scalar, or [...] with ``"none"``; float32, or float64 where the student's logits are.

    Raises:
        InputError: shapes, dtypes, devices or vocabularies do not fit.
        ConfigError: the labels are not truncated ones, or an option is out of range.
    """
    loss = "residual_to_gold"
    if not isinstance(labels, TopKLabels):
        raise ConfigError(
            f"losses.{loss}: labels are {type(labels).__name__}, of which nothing was cut off: it is for "
            "those of codec topk or topp; use losses.forward_kl"
        )
    leading = labels.log_tail.shape
    check_labels(loss, student_logits, leading, labels.vocabulary, labels.ids.device)
    given = student_logits.hidden if isinstance(student_logits, Projection) else student_logits
    target = checked_target(loss, shape_of(student_logits), given.device, target)
    if target.is_floating_point():
        raise ConfigError(
            f"losses.{loss}: the target is {target.dtype}: it must be the indices of true tokens"
        )
    check_ids(loss, "target", target, shape_of(student_logits)[-1], mask, _IGNORE_INDEX)
    t = labels.temperature

    def of(logits: Tensor, gold: Tensor, ids: Tensor, log_probs: Tensor, log_tail: Tensor) -> Tensor:
        log_q = softened(logits, t)
        p = log_probs.to(log_q.dtype).exp()
        kept = -(p * log_q.gather(-1, ids).masked_fill(p == 0, 0.0)).sum(dim=-1)
        residual = log_tail.to(log_q.dtype).exp() * F.nll_loss(
            log_q, gold, ignore_index=_IGNORE_INDEX, reduction="none"
        )
        return (t**2 * (kept + residual).masked_fill(gold == _IGNORE_INDEX, 0.0)).to(logits.dtype)

    constants = [
        flat_rows(each, len(leading)) for each in (target, labels.ids, labels.log_probs, labels.log_tail)
    ]
    rows = Rows(of, constants, dtype_of(student_logits))
    return reduced(loss, student_logits, rows, mask, count, reduction)
