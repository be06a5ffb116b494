"""The reverse divergence by tokens that the student drew: what on-policy distillation minimises."""

from __future__ import annotations

import torch
from torch import Tensor

from edldist.errors import ConfigError, InputError
from edldist.labels.typed import GatheredLabels, Labels, SampledLabels, TopKLabels
from edldist.losses.checks import check_ids
from edldist.losses.formulas import softened
from edldist.losses.positions import reduced
from edldist.losses.projection import Head
from edldist.losses.reduction import Reduction
from edldist.losses.rows import Rows, Student, dtype_of, flat_rows, shape_of
from edldist.losses.support import support_of

__all__ = ["policy_gradient"]


def policy_gradient(
    student_logits: Student,
    labels: Labels,
    ids: Tensor,
    *,
    drawn_log_probs: Tensor | None = None,
    mask: Tensor | None = None,
    count: Tensor | float | None = None,
    reduction: Reduction = "mean",
    teacher_head: Head | None = None,
) -> Tensor:
    """The reverse KL, estimated by drawn tokens y: ``mean of r * (log q(y) - log p(y))``, q the student.

    Its value is an unbiased estimate of ``KL(student || teacher)`` at temperature 1 if the tokens were drawn
    from the student, and its gradient, ``mean of r * (log q(y) - log p(y)) * grad log q(y)``, one of that
    divergence's gradient: the policy gradient whose reward is the teacher's log-probability less the
    student's (Lu, "On-Policy Distillation", 2025). ``r`` is 1, or the ratio ``q(y) / q_then(y)`` if the
    student has taken steps since it drew them.

    Args:
        student_logits: float [..., V], or a ``Projection``: of the student as it is now.
        labels: the teacher's logits, float [..., V], hidden states, or, cheapest, those of codec ``gather``
            for the same ids.
        ids: drawn tokens, integers [...], or several at each position, [..., G].
        drawn_log_probs: log-probabilities of ``ids`` when they were drawn, of their shape; None if the
            student is the same as then.
        mask: bool [...], true where a position counts (completions, not prompts); None for all.
        count: see ``forward_kl``.
        reduction: ``"mean"`` over all positions that count, ``"sum"``, or ``"none"``.
        teacher_head: of the teacher, for ``HiddenLabels``.

    Returns:
        Scalar, or [...] with ``"none"``; float32, or float64 where an input is float64.

    Raises:
        InputError: shapes, dtypes, devices or vocabularies do not fit.
        ConfigError: labels that may not know a drawn token's probability, or are not of temperature 1.
    """
    loss = "policy_gradient"
    if isinstance(labels, TopKLabels | SampledLabels):
        raise ConfigError(
            f"losses.{loss}: labels are {type(labels).__name__}, which know the probabilities of some "
            "tokens, and the student may draw others: it would be biased. Use codec gather"
        )
    leading = shape_of(student_logits)[:-1]
    ids = _of_positions(loss, "ids", ids, leading)
    check_ids(loss, "id", ids, shape_of(student_logits)[-1], mask)
    drawn = None
    if drawn_log_probs is not None:
        drawn = _of_positions(loss, "drawn_log_probs", drawn_log_probs, leading)
        if drawn.shape != ids.shape:
            raise InputError(
                f"losses.{loss}: drawn_log_probs has shape {list(drawn.shape)}, ids {list(ids.shape)}: one "
                "for each drawn token"
            )
    if isinstance(labels, GatheredLabels):
        told, dtype, log_p_of = _gathered(loss, labels, ids), dtype_of(student_logits), None
    else:
        support = support_of(loss, student_logits, labels, 1.0, teacher_head)
        told, dtype, log_p_of = support.constants, support.dtype, support.pair

    def of(logits: Tensor, ids: Tensor, *constants: Tensor) -> Tensor:
        then, constants = (None, constants) if drawn is None else (constants[0], constants[1:])
        if log_p_of is None:
            log_q, log_p = softened(logits, 1.0).gather(-1, ids), constants[0].to(logits.dtype)
        else:
            both = log_p_of(logits, *constants)
            log_p, log_q = (each.gather(-1, ids) for each in both)
        # Its value is r, and its gradient r times that of log q.
        ratio = (log_q - (log_q.detach() if then is None else then.to(log_q.dtype))).exp()
        return (ratio * (log_q.detach() - log_p)).mean(dim=-1)

    constants = [flat_rows(each, len(leading)) for each in (ids, *(() if drawn is None else (drawn,)))]
    rows = Rows(of, [*constants, *told], dtype)
    return reduced(loss, student_logits, rows, mask, count, reduction)


def _gathered(loss: str, labels: GatheredLabels, ids: Tensor) -> list[Tensor]:
    if labels.temperature != 1.0:
        raise ConfigError(
            f"losses.{loss}: labels tell probabilities at temperature {labels.temperature:g}, and the "
            "student draws at 1: write the codec as gather"
        )
    if labels.log_probs.shape != ids.shape:
        raise InputError(
            f"losses.{loss}: there are log-probabilities of shape {list(labels.log_probs.shape)} for ids of "
            f"shape {list(ids.shape)}: give the ids that the teacher was sent"
        )
    return [flat_rows(labels.log_probs, labels.log_probs.ndim - 1)]


def _of_positions(loss: str, name: str, tensor: Tensor, leading: tuple[int, ...]) -> Tensor:
    """[..., G] of a tensor with one or several values for each position."""
    if not isinstance(tensor, Tensor):
        raise InputError(f"losses.{loss}: {name} is {type(tensor).__name__}, not a tensor")
    if name == "ids" and (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool):
        raise InputError(f"losses.{loss}: ids are {tensor.dtype}: they must be integers")
    if name != "ids" and not tensor.is_floating_point():
        raise InputError(f"losses.{loss}: {name} is {tensor.dtype}: it must be floating point")
    if tensor.shape == leading:
        tensor = tensor.unsqueeze(-1)
    if tensor.shape[:-1] != leading or tensor.shape[-1] == 0:
        raise InputError(
            f"losses.{loss}: {name} has shape {list(tensor.shape)}, the positions {list(leading)}: one or "
            "several for each"
        )
    return tensor.to(torch.int64) if name == "ids" else tensor
