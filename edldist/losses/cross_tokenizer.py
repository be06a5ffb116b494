"""Losses between models that cut text into different tokens: by what does not depend on which token is
which."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edldist.errors import ConfigError, InputError
from edldist.labels.typed import GatheredLabels, Labels, TopKLabels
from edldist.losses.checks import check_ids, checked_temperature, is_number
from edldist.losses.formulas import softened
from edldist.losses.positions import reduced
from edldist.losses.projection import Projection
from edldist.losses.reduction import Reduction, check_reduction
from edldist.losses.rows import Rows, Student, by_rows, dtype_of, flat_rows, shape_of
from edldist.losses.support import told_temperature

__all__ = ["span_likelihood", "uld"]


def uld(
    student_logits: Student,
    labels: Labels,
    *,
    temperature: float | None = None,
    mask: Tensor | None = None,
    count: Tensor | float | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Universal Logit Distillation: ``sum |p(i) - q(i)|``, the i-th largest probabilities of either side.

    The L1 distance of sorted probabilities, the shorter vocabulary filled up with zeros (Boizard et al.,
    "Towards Cross-Tokenizer Distillation: the Universal Logit Distillation Loss for LLMs", arXiv
    2402.12030): the Wasserstein distance where each token is as far from any other. It tells how sure the
    teacher is, and between how many tokens it hesitates, and not which these are: add it to a loss on the
    true tokens.

    Of ``topk`` labels: over the K largest, and the mass of all others as one more.

    Args:
        student_logits: float [..., V], or a ``Projection``.
        labels: the teacher's logits, float [..., W], or ``TopKLabels``, at the student's positions
            (``edldist.vocabulary.align(...).bring(labels)``).
        temperature: T, from 1e-6 to 1e6; None: that of the labels, and 1 for logits.
        mask: bool [...], true where a position counts: where both have read the same.
        count: see ``forward_kl``.
        reduction: ``"mean"`` over all positions that count, ``"sum"``, or ``"none"``.

    Returns:
        Scalar, or [...] with ``"none"``; float32, or float64 where an input is float64.

    Raises:
        InputError: shapes, dtypes or devices do not fit.
        ConfigError: these labels do not tell the largest probabilities, or an option is out of range.
    """
    leading = shape_of(student_logits)[:-1]
    if isinstance(labels, TopKLabels):
        t = told_temperature("uld", labels.temperature, temperature)
        told = [labels.log_probs, labels.log_tail]
    elif isinstance(labels, Tensor) and labels.is_floating_point() and labels.ndim:
        t = checked_temperature("uld", 1.0 if temperature is None else temperature)
        told = [labels]
    else:
        raise ConfigError(
            f"losses.uld: labels are {type(labels).__name__}, which do not tell the largest probabilities: "
            "take "
            "codec topk, or dense"
        )
    _check_positions("uld", student_logits, told[0])

    def of(logits: Tensor, *told: Tensor) -> Tensor:
        q = softened(logits, t).exp()
        if len(told) == 1:
            p = softened(told[0].to(logits.dtype), t).exp()
            largest = [each.sort(dim=-1, descending=True).values for each in (p, q)]
            return _distance(*largest).to(logits.dtype)
        p = told[0].exp().to(q.dtype)
        largest_q = q.topk(min(p.shape[-1], q.shape[-1]), dim=-1).values
        rest = (told[1].exp().to(q.dtype) - (1.0 - largest_q.sum(dim=-1))).abs()
        return (_distance(p, largest_q) + rest).to(logits.dtype)

    wide = any(each.dtype == torch.float64 for each in told)
    rows = Rows(
        of,
        [flat_rows(each, len(leading)) for each in told],
        torch.float64 if wide else dtype_of(student_logits),
    )
    return reduced("uld", student_logits, rows, mask, count, reduction)


def span_likelihood(
    student_logits: Student,
    ids: Tensor,
    labels: GatheredLabels,
    student_spans: Tensor,
    teacher_spans: Tensor,
    spans: int,
    *,
    tau: float = 1.0,
    count: Tensor | float | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """How probable a piece of text is to either side: ``KL(p || q) + KL(1 - p || 1 - q)`` of two outcomes.

    ``p`` and ``q`` are the probabilities of the text of a span, products of those of its tokens, to the
    power of ``1 / tau``. It is the binarised divergence of Approximate Likelihood Matching (Minixhofer,
    Vulić and Ponti, "Universal Cross-Tokenizer Distillation via Approximate Likelihood Matching", arXiv
    2503.20083), without its
    debiasing: that a token of the teacher's may go on behind the span is not allowed for. It tells what the
    teacher thinks of the text that stands there, and nothing of what might stand there instead.

    Args:
        student_logits: float [B, S, V], or a ``Projection``; those at a token say what comes next.
        ids: the student's tokens, integers [B, S].
        labels: of codec ``gather``, [B, R, 1]: at each token of the teacher's the log-probability of the
            next.
        student_spans, teacher_spans, spans: of ``edldist.vocabulary.align``.
        tau: from 1 to 1000; above 1, spans that are improbable to both count for more.
        count: what ``"mean"`` divides by instead of the number of spans that count here.
        reduction: ``"mean"`` over spans, ``"sum"``, or ``"none"``. A span of which the teacher told only a
            part does not count, and is 0.

    Returns:
        Scalar, or [spans] with ``"none"``; float32, or float64 where the student's logits are.

    Raises:
        InputError: shapes, dtypes or devices do not fit, or an id is none.
        ConfigError: an option is out of range, or the labels are of another codec or temperature.
    """
    loss = "span_likelihood"
    check_reduction(loss, reduction, count)
    if not is_number(tau) or not 1.0 <= tau <= 1000.0:
        raise ConfigError(f"losses.{loss}: tau={tau!r} must be a number from 1 to 1000")
    if not isinstance(labels, GatheredLabels) or labels.temperature != 1.0:
        raise ConfigError(
            f"losses.{loss}: it needs the teacher's log-probabilities of its own tokens, at temperature 1: "
            "take "
            f"codec gather (labels are {type(labels).__name__})"
        )
    shape = shape_of(student_logits)
    told = labels.log_probs
    if len(shape) != 3 or ids.shape != shape[:2] or student_spans.shape != shape[:2]:
        raise InputError(
            f"losses.{loss}: logits {list(shape)}, ids {list(ids.shape)} and student_spans "
            f"{list(student_spans.shape)}: they must be [B, S, V], [B, S] and [B, S]"
        )
    if told.shape != (*teacher_spans.shape, 1) or teacher_spans.ndim != 2:
        raise InputError(
            f"losses.{loss}: there are log-probabilities {list(told.shape)} for teacher_spans "
            f"{list(teacher_spans.shape)}: one for each token"
        )
    device = told.device
    ours, theirs = student_spans.to(device)[:, 1:].reshape(-1), teacher_spans.to(device)[:, 1:].reshape(-1)
    following = F.pad(ids.to(torch.int64)[:, 1:], (0, 1))
    lies = F.pad(student_spans.to(device)[:, 1:] >= 0, (0, 1))  # in a span, the token that follows
    check_ids(loss, "id", following, shape[-1], lies)

    def of(logits: Tensor, ids: Tensor, lies: Tensor) -> Tensor:
        log_q = softened(logits, 1.0).gather(-1, ids.where(lies, 0).unsqueeze(-1)).squeeze(-1)
        return log_q.masked_fill(~lies, 0.0)

    rows = Rows(of, [flat_rows(following.to(device), 2), flat_rows(lies, 2)], dtype_of(student_logits))
    log_q = by_rows(rows, student_logits)[:, :-1].reshape(-1)
    log_p = told.detach()[:, :-1, 0].reshape(-1).to(log_q.dtype)
    unknown = log_p.isnan()
    # One more span takes in what lies in none.
    sums = [log_q.new_zeros(spans + 1) for _ in range(3)]
    q = sums[0].index_add(0, ours.where(ours >= 0, spans), log_q)[:-1]
    at = theirs.where(theirs >= 0, spans)
    p = sums[1].index_add(0, at, log_p.masked_fill(unknown, 0.0))[:-1]
    counts = sums[2].index_add(0, at, unknown.to(log_q.dtype))[:-1] == 0
    each = _of_two(p / tau, q / tau).where(counts, 0.0)
    if reduction == "none":
        return each
    if reduction == "sum":
        return each.sum()
    total = counts.sum() if count is None else torch.as_tensor(count, device=device)
    return each.sum() / total.to(each.dtype).clamp(min=1.0 if count is None else torch.finfo(each.dtype).tiny)


def _of_two(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``KL(p || q)`` of an outcome and its opposite, by their logarithms."""
    nearly = -torch.finfo(log_p.dtype).eps  # 1 - p is never quite 0
    log_p, log_q = log_p.clamp(max=nearly), log_q.clamp(max=nearly)
    p = log_p.exp()
    return p * (log_p - log_q) + (1.0 - p) * (_log_opposite(log_p) - _log_opposite(log_q))


def _log_opposite(log_p: Tensor) -> Tensor:
    """``log(1 - p)``."""
    near = log_p > -0.6931
    return torch.where(
        near,
        (-torch.expm1(log_p.where(near, -0.5))).log(),
        torch.log1p(-log_p.where(~near, -1.0).exp()),
    )


def _distance(p: Tensor, q: Tensor) -> Tensor:
    """``sum |p - q|`` of rows that may differ in length, [..., K] and [..., L]."""
    longest = max(p.shape[-1], q.shape[-1])
    p, q = (F.pad(each, (0, longest - each.shape[-1])) for each in (p, q))
    return (p - q).abs().sum(dim=-1)


def _check_positions(loss: str, student: Student, labels: Tensor) -> None:
    rows = student.hidden if isinstance(student, Projection) else student
    leading = shape_of(student)[:-1]
    if labels.shape[:-1] != leading or not labels.shape[-1]:
        raise InputError(
            f"losses.{loss}: the student's logits are of positions {list(leading)}, the labels of "
            f"{list(labels.shape[:-1])}: bring them to the student's first (edldist.vocabulary.align)"
        )
    if labels.device != rows.device or not rows.is_floating_point():
        raise InputError(
            f"losses.{loss}: the student's logits are {rows.dtype} on {rows.device}, the labels on "
            f"{labels.device}"
        )
