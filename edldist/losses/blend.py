"""The teacher's softened distribution and the true labels, blended."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from edldist.errors import ConfigError
from edldist.labels.typed import Labels, SampledLabels, TopKLabels
from edldist.losses import formulas
from edldist.losses.checks import check_ids, checked_fraction, checked_target, checked_temperature
from edldist.losses.positions import reduced
from edldist.losses.projection import Head, Projection
from edldist.losses.reduction import Reduction, check_reduction
from edldist.losses.rows import Rows, Student, flat_rows, shape_of
from edldist.losses.support import drawn_rows, support_of

__all__ = ["kd"]

_IGNORE_INDEX = -100
_TEMPERATURE = 4.0


def kd(
    student_logits: Student,
    teacher_logits: Labels,
    target: Tensor | None = None,
    *,
    temperature: float | None = None,
    alpha: float = 0.9,
    mask: Tensor | None = None,
    count: Tensor | float | None = None,
    reduction: Reduction = "mean",
    teacher_head: Head | None = None,
) -> Tensor:
    """Blend the teacher's softened distribution with the true labels.

    ``alpha * T² * KL(softmax(teacher / T) || softmax(student / T)) + (1 - alpha) * CE(student, target)``
    (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015). T² keeps the soft
    gradients of the same size whatever the temperature. A term of weight 0 is not computed at all.

    Args:
        student_logits: float [..., C], or a ``Projection``.
        teacher_logits: float [..., C], on the student's device, or typed labels: see ``forward_kl``. A class
            at ``-inf`` has probability 0.
        target: class indices, any integer type [...], or class probabilities, float [..., C]. An index
            of -100 (torch's ``ignore_index``) adds no cross-entropy, but its position has a soft term and
            counts in the mean: leave padding out by the mask. May be left out when ``alpha`` is 1.
        temperature: T, from 1e-6 to 1e6. None: 4, or that of typed labels. Above 16 the soft term is computed
            in float64.
        alpha: weight of the soft term, from 0 to 1.
        mask: bool [...], true where a position counts, in both terms; None for all.
        count: see ``forward_kl``.
        reduction: ``"mean"`` over all positions that count, ``"sum"``, or ``"none"``.
        teacher_head: of the teacher, for ``HiddenLabels``.

    Returns:
        Scalar, or [...] with ``"none"``; float32, or float64 where an input is float64.

    Raises:
        InputError: shapes, dtypes, devices or vocabularies do not fit.
        ConfigError: ``temperature``, ``alpha`` or ``reduction`` is out of range, ``target`` is missing, or
            these labels cannot serve this loss.
    """
    check_reduction("kd", reduction, count)
    if temperature is not None:
        temperature = checked_temperature("kd", temperature)
    elif not isinstance(teacher_logits, TopKLabels | SampledLabels):
        temperature = _TEMPERATURE
    alpha = checked_fraction("kd", "alpha", alpha)
    if isinstance(teacher_logits, SampledLabels):
        soft = drawn_rows("kd", student_logits, teacher_logits, temperature)
    else:
        support = support_of("kd", student_logits, teacher_logits, temperature, teacher_head)
        soft = support.rows(formulas.forward_kl)
    if target is None and alpha < 1.0:
        raise ConfigError(
            f"losses.kd: alpha={alpha:g} gives the true labels a weight of {1.0 - alpha:g}, but target is "
            "None: pass the labels, or alpha=1.0 to learn from the teacher alone"
        )
    constants = list(soft.constants) if alpha > 0.0 else []
    if target is not None:
        given = student_logits.hidden if isinstance(student_logits, Projection) else student_logits
        shape = shape_of(student_logits)
        target = checked_target("kd", shape, given.device, target)
        if alpha < 1.0 and not target.is_floating_point():
            check_ids("kd", "target", target, shape[-1], mask, _IGNORE_INDEX)
        constants.insert(0, flat_rows(target, len(shape) - 1))

    def of(logits: Tensor, *constants: Tensor) -> Tensor:
        hard, told = (None, constants) if target is None else (constants[0], constants[1:])
        loss = logits.new_zeros(logits.shape[:-1])
        if alpha > 0.0:
            loss = loss + alpha * soft.of(logits, *told)
        if hard is not None and alpha < 1.0:
            loss = loss + (1.0 - alpha) * _cross_entropy(logits, hard)
        return loss

    rows = Rows(of, constants, soft.dtype)
    return reduced("kd", student_logits, rows, mask, count, reduction)


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Of rows [n, C] with indices [n] or probabilities [n, C]; [n]."""
    if not target.is_floating_point():
        return F.cross_entropy(logits, target, ignore_index=_IGNORE_INDEX, reduction="none")
    # A class that neither side gives a chance adds 0, where torch has 0 * -inf.
    products = target.to(logits.dtype) * F.log_softmax(logits, dim=-1)
    return -products.masked_fill(target == 0, 0.0).sum(dim=-1)
