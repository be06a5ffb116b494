"""Distillation losses: pure functions of the student's and the teacher's outputs.

All of them compute in float32, or in float64 where an input is float64, so that half-precision
labels lose nothing further on the way. They are differentiable in the student only (the teacher's
side is detached), never wait for the device, and give 0 for an empty batch under ``"mean"``.

Shape legend: C classes, B lists, L items of a list, ``...`` any leading dimensions.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from edldist.errors import ConfigError, InputError

__all__ = ["Reduction", "cosine", "kd", "mse", "ranking"]

Reduction = Literal["mean", "sum", "none"]

_ZERO_LENGTH = 1e-12
_REDUCTIONS = ("mean", "sum", "none")


def kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 4.0,
    alpha: float = 0.9,
    reduction: Reduction = "mean",
) -> Tensor:
    """Blend the teacher's softened distribution with the true labels.

    ``alpha * T² * KL(softmax(teacher / T) || softmax(student / T)) + (1 - alpha) * CE(student, target)``
    (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015). T² keeps the soft
    gradients of the same size whatever the temperature. A term of weight 0 is not computed at all.

    Args:
        student_logits: float [..., C].
        teacher_logits: float [..., C], on the student's device. A class at ``-inf`` has probability 0.
        target: class indices, any integer type [...], or class probabilities, float [..., C]. An index
            of -100 (torch's ``ignore_index``) adds no cross-entropy; its position still counts in the
            mean. May be left out when ``alpha`` is 1.
        temperature: T > 0.
        alpha: weight of the soft term, from 0 to 1.
        reduction: ``"mean"`` over all leading positions, ``"sum"``, or ``"none"``.

    Returns:
        Scalar, or [...] with ``"none"``; float32, or float64 where an input is float64.

    Raises:
        InputError: shapes, dtypes or devices do not fit.
        ConfigError: ``temperature``, ``alpha`` or ``reduction`` is out of range, or ``target`` is missing.
    """
    _check_reduction("kd", reduction)
    temperature = _checked_temperature("kd", temperature)
    alpha = _checked_alpha(alpha)
    student, teacher = _checked_pair("kd", "logits", student_logits, teacher_logits)
    if target is None and alpha < 1.0:
        raise ConfigError(
            f"losses.kd: alpha={alpha:g} gives the true labels a weight of {1.0 - alpha:g}, but target is "
            "None: pass the labels, or alpha=1.0 to learn from the teacher alone"
        )
    loss = student.new_zeros(student.shape[:-1])
    if alpha > 0.0:
        soft = _top_one_kl(student / temperature, teacher / temperature)
        loss = loss + alpha * temperature**2 * soft
    if target is not None:
        hard_target = _checked_target(student, target)
        if alpha < 1.0:
            loss = loss + (1.0 - alpha) * _cross_entropy(student, hard_target)
    return _reduce(loss, reduction)


def mse(
    student_features: Tensor,
    teacher_features: Tensor,
    *,
    normalize: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """Squared distance of each feature from the teacher's.

    Args:
        student_features: float, any shape.
        teacher_features: the same shape, on the student's device.
        normalize: scale the vectors along the last dimension to length 1 first, so that only their
            direction counts. A zero vector stays zero, with no gradient.
        reduction: ``"mean"`` over all *elements* as in torch, ``"sum"``, or ``"none"``.

    Returns:
        Scalar, or the inputs' shape with ``"none"``; float32, or float64 where an input is float64.

    Raises:
        InputError: shapes, dtypes or devices do not fit.
        ConfigError: ``reduction`` is unknown.
    """
    _check_reduction("mse", reduction)
    student, teacher = _checked_pair("mse", "features", student_features, teacher_features)
    if normalize:
        student, teacher = _unit(student, -1), _unit(teacher, -1)
    return _reduce((student - teacher) ** 2, reduction)


def cosine(
    student_features: Tensor,
    teacher_features: Tensor,
    *,
    dim: int = -1,
    reduction: Reduction = "mean",
) -> Tensor:
    """One minus the cosine of the angle to the teacher's vectors: 0 aligned, 1 orthogonal, 2 opposed.

    Args:
        student_features: float, any shape with ``dim``.
        teacher_features: the same shape, on the student's device.
        dim: the dimension that holds a vector. A zero vector counts as orthogonal, with no gradient.
        reduction: ``"mean"`` over all vectors, ``"sum"``, or ``"none"``.

    Returns:
        Scalar, or the inputs' shape without ``dim`` with ``"none"``; float32, or float64 where an
        input is float64.

    Raises:
        InputError: shapes, dtypes or devices do not fit.
        ConfigError: ``dim`` does not exist, or ``reduction`` is unknown.
    """
    _check_reduction("cosine", reduction)
    student, teacher = _checked_pair("cosine", "features", student_features, teacher_features)
    if not -student.ndim <= dim < student.ndim:
        raise ConfigError(
            f"losses.cosine: dim={dim} does not exist in features of shape {list(student.shape)}: "
            f"choose from {-student.ndim} to {student.ndim - 1}"
        )
    return _reduce(1.0 - (_unit(student, dim) * _unit(teacher, dim)).sum(dim=dim), reduction)


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
        temperature: T > 0; lower sharpens both distributions towards the top of the list.
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
    _check_reduction("ranking", reduction)
    temperature = _checked_temperature("ranking", temperature)
    student, teacher = _checked_pair("ranking", "scores", student_scores_BL, teacher_scores_BL)
    student, teacher = student / temperature, teacher / temperature
    if mask is not None:
        _check_mask(student, mask)
        # The lowest finite score, not -inf: a list without any item is then uniform on both sides,
        # with loss 0 and gradient 0, where -inf would give NaN.
        lowest = torch.finfo(student.dtype).min
        student, teacher = student.masked_fill(~mask, lowest), teacher.masked_fill(~mask, lowest)
    loss = temperature**2 * _top_one_kl(student, teacher)
    if mask is not None and reduction == "mean":
        return loss.sum() / mask.any(dim=-1).sum().clamp(min=1)
    return _reduce(loss, reduction)


def _top_one_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(softmax(teacher) || softmax(student)) along the last dimension."""
    log_q = F.log_softmax(student, dim=-1)
    log_p = F.log_softmax(teacher, dim=-1)
    p = log_p.exp()
    # 0 * log 0 is 0 in a KL divergence, and NaN in floating point. Not `p > 0`: a teacher's NaN must
    # show in the loss.
    return torch.where(p == 0, 0.0, p * (log_p - log_q)).sum(dim=-1)


def _cross_entropy(student: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each leading position; torch alone would look for the classes in dimension 1."""
    classes = student.shape[-1]
    flat_target = target.reshape(-1, classes) if target.is_floating_point() else target.reshape(-1)
    flat = F.cross_entropy(student.reshape(-1, classes), flat_target, reduction="none")
    return flat.reshape(student.shape[:-1])


def _unit(vectors: Tensor, dim: int) -> Tensor:
    """Vectors of length 1; a zero vector stays zero, with no gradient.

    torch's ``normalize`` and ``cosine_similarity`` give it one of 1e8 and more, which a single dead
    unit's features would send through the whole student.
    """
    length = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    return torch.where(length > _ZERO_LENGTH, vectors / length.clamp(min=_ZERO_LENGTH), 0.0)


def _reduce(loss: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    return loss.sum() / max(1, loss.numel())


def _checked_pair(loss: str, kind: str, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides in the dtype to compute in, the teacher's detached."""
    for side, tensor in (("student", student), ("teacher", teacher)):
        if not isinstance(tensor, Tensor):
            raise InputError(f"losses.{loss}: the {side}'s {kind} are {type(tensor).__name__}, not a tensor")
    if student.shape != teacher.shape:
        raise InputError(
            f"losses.{loss}: the student's {kind} have shape {list(student.shape)}, the teacher's "
            f"{list(teacher.shape)}: they must agree, so bring the student's side to the teacher's shape"
        )
    if student.ndim == 0 or student.shape[-1] == 0:
        raise InputError(
            f"losses.{loss}: {kind} of shape {list(student.shape)} have nothing in their last dimension"
        )
    if not student.is_floating_point() or teacher.is_complex():
        raise InputError(
            f"losses.{loss}: the student's {kind} are {student.dtype}, the teacher's {teacher.dtype}: "
            "the student's must be floating point and the teacher's real"
        )
    if student.device != teacher.device:
        raise InputError(
            f"losses.{loss}: the student's {kind} are on {student.device}, the teacher's on "
            f"{teacher.device}: move the labels with .to({str(student.device)!r}) first"
        )
    wide = torch.float64 in (student.dtype, teacher.dtype)
    dtype = torch.float64 if wide else torch.float32
    return student.to(dtype), teacher.detach().to(dtype)


def _checked_target(student: Tensor, target: Tensor) -> Tensor:
    """The target in a dtype that torch's cross-entropy takes: int64 indices or the student's floats."""
    if not isinstance(target, Tensor):
        raise InputError(f"losses.kd: the target is {type(target).__name__}, not a tensor")
    if target.dtype == torch.bool or target.is_complex():
        raise InputError(
            f"losses.kd: the target is {target.dtype}: pass integer class indices or float probabilities"
        )
    floating = target.is_floating_point()
    wanted = student.shape if floating else student.shape[:-1]
    if target.shape != wanted:
        meaning = "class probabilities" if floating else "class indices"
        raise InputError(
            f"losses.kd: a target of {target.dtype} holds {meaning} and must have shape {list(wanted)} for "
            f"logits of shape {list(student.shape)}, but has {list(target.shape)}"
        )
    if target.device != student.device:
        raise InputError(
            f"losses.kd: the logits are on {student.device}, the target on {target.device}: move the "
            f"target with .to({str(student.device)!r}) first"
        )
    return target.to(student.dtype if floating else torch.int64)


def _check_mask(scores: Tensor, mask: Tensor) -> None:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise InputError(f"losses.ranking: the mask is {found}: it must be a bool tensor, true for an item")
    if mask.shape != scores.shape or mask.device != scores.device:
        raise InputError(
            f"losses.ranking: the mask has shape {list(mask.shape)} on {mask.device}, the scores "
            f"{list(scores.shape)} on {scores.device}: they must agree"
        )


def _check_reduction(loss: str, reduction: str) -> None:
    if reduction not in _REDUCTIONS:
        raise ConfigError(f"losses.{loss}: reduction={reduction!r} is unknown: use one of {_REDUCTIONS}")


def _checked_temperature(loss: str, temperature: float) -> float:
    # Only plain numbers: comparing a tensor with 0 would wait for its device.
    if not _is_number(temperature) or not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"losses.{loss}: temperature={temperature!r} must be a finite number above 0")
    return float(temperature)


def _checked_alpha(alpha: float) -> float:
    if not _is_number(alpha) or not 0.0 <= alpha <= 1.0:
        raise ConfigError(f"losses.kd: alpha={alpha!r} must be a number from 0 to 1")
    return float(alpha)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
