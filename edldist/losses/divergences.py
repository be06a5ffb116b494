"""Divergences between a teacher's distribution and a student's, as far as labels tell them."""

from __future__ import annotations

from torch import Tensor

from edldist.errors import ConfigError
from edldist.labels.typed import Labels, SampledLabels
from edldist.losses import formulas
from edldist.losses.checks import checked_fraction
from edldist.losses.positions import reduced
from edldist.losses.projection import Head
from edldist.losses.reduction import Reduction
from edldist.losses.rows import Student
from edldist.losses.support import drawn_rows, support_of

__all__ = ["forward_kl", "jensen_shannon", "reverse_kl", "skewed_kl"]

_NEEDS_P = (
    "it needs the teacher's probability of every token that the student gives a chance, and draws tell of "
    "few, so it would be biased: use losses.forward_kl, or codec topk, hidden or dense"
)


def forward_kl(
    student_logits: Student,
    labels: Labels,
    *,
    temperature: float | None = None,
    mask: Tensor | None = None,
    count: Tensor | float | None = None,
    reduction: Reduction = "mean",
    teacher_head: Head | None = None,
) -> Tensor:
    """``T² * KL(teacher || student)``: the student covers what the teacher does.

    Of drawn labels (``SampledLabels``) it is the cross-entropy, ``-sum(w * log q)``: that differs by the
    teacher's entropy, which draws do not tell and which has no gradient. Its mean over draws is the one over
    all classes ("Sparse Logit Sampling", Anshumann et al., arXiv 2503.16870).

    Args:
        student_logits: float [..., V], or a ``Projection``, from which they are made a few rows at a time.
        labels: the teacher's logits, float [..., V], or typed labels of the same positions.
        temperature: T, from 1e-6 to 1e6; None: that of the labels, and 1 for logits and hidden states.
        mask: bool [...], true where a position counts; None for all.
        count: what ``"mean"`` divides by instead of the number of positions that count here:
            ``mean_count(mask)`` where ranks train together.
        reduction: ``"mean"`` over all positions that count, ``"sum"``, or ``"none"``.
        teacher_head: of the teacher, for ``HiddenLabels``.

    Returns:
        Scalar, or [...] with ``"none"``; float32, or float64 where an input is float64.

    Raises:
        InputError: shapes, dtypes, devices or vocabularies do not fit.
        ConfigError: an option is out of range, or these labels cannot serve this loss.
    """
    if isinstance(labels, SampledLabels):
        rows = drawn_rows("forward_kl", student_logits, labels, temperature)
    else:
        support = support_of("forward_kl", student_logits, labels, temperature, teacher_head)
        rows = support.rows(formulas.forward_kl)
    return reduced("forward_kl", student_logits, rows, mask, count, reduction)


def reverse_kl(
    student_logits: Student,
    labels: Labels,
    *,
    temperature: float | None = None,
    mask: Tensor | None = None,
    count: Tensor | float | None = None,
    reduction: Reduction = "mean",
    teacher_head: Head | None = None,
) -> Tensor:
    """``T² * KL(student || teacher)``: the student stays where the teacher is (Gu et al., "MiniLLM", 2023).

    Arguments, result and errors as of ``forward_kl``. Infinite where the student gives a chance to a class at
    which the teacher's logit is ``-inf``.
    """
    support = support_of("reverse_kl", student_logits, labels, temperature, teacher_head, _NEEDS_P)
    return reduced("reverse_kl", student_logits, support.rows(formulas.reverse_kl), mask, count, reduction)


def jensen_shannon(
    student_logits: Student,
    labels: Labels,
    *,
    beta: float = 0.5,
    temperature: float | None = None,
    mask: Tensor | None = None,
    count: Tensor | float | None = None,
    reduction: Reduction = "mean",
    teacher_head: Head | None = None,
) -> Tensor:
    """The generalised Jensen-Shannon divergence (Agarwal et al., "On-Policy Distillation of Language Models",
    2024).

    ``T² * (beta * KL(p || m) + (1 - beta) * KL(q || m))`` with ``m = beta * p + (1 - beta) * q``, p the
    teacher and q the student; by convention the forward KL at ``beta`` 0, and the reverse KL at 1, to whose
    gradients it tends when divided by ``beta``, or by ``1 - beta``.

    Args:
        beta: from 0 to 1.

    Other arguments, result and errors as of ``forward_kl``.
    """
    beta = checked_fraction("jensen_shannon", "beta", beta)
    if beta == 0.0 and isinstance(labels, SampledLabels):
        drawn = drawn_rows("jensen_shannon", student_logits, labels, temperature)
        return reduced("jensen_shannon", student_logits, drawn, mask, count, reduction)

    def formula(log_p: Tensor, log_q: Tensor) -> Tensor:
        if beta == 0.0:
            return formulas.forward_kl(log_p, log_q)
        if beta == 1.0:
            return formulas.reverse_kl(log_p, log_q)
        return formulas.jensen_shannon(log_p, log_q, beta)

    support = support_of("jensen_shannon", student_logits, labels, temperature, teacher_head, _NEEDS_P)
    return reduced("jensen_shannon", student_logits, support.rows(formula), mask, count, reduction)


def skewed_kl(
    student_logits: Student,
    labels: Labels,
    *,
    alpha: float = 0.1,
    reverse: bool = False,
    temperature: float | None = None,
    mask: Tensor | None = None,
    count: Tensor | float | None = None,
    reduction: Reduction = "mean",
    teacher_head: Head | None = None,
) -> Tensor:
    """``T² * KL(p || alpha * p + (1 - alpha) * q)``, p the teacher and q the student; exchanged if
    ``reverse``.

    Its gradients stay bounded where the student gives next to no chance to what the teacher says (Ko et al.,
    "DistiLLM", 2024).

    Args:
        alpha: from 0 (the forward or reverse KL) to below 1.
        reverse: ``KL(q || alpha * q + (1 - alpha) * p)`` instead.

    Other arguments, result and errors as of ``forward_kl``.
    """
    alpha = checked_fraction("skewed_kl", "alpha", alpha)
    if alpha == 1.0:
        raise ConfigError("losses.skewed_kl: alpha=1 compares a distribution with itself: choose less than 1")

    def formula(log_p: Tensor, log_q: Tensor) -> Tensor:
        return formulas.skewed_kl(log_p, log_q, alpha, reverse)

    support = support_of("skewed_kl", student_logits, labels, temperature, teacher_head, _NEEDS_P)
    return reduced("skewed_kl", student_logits, support.rows(formula), mask, count, reduction)
