"""Distillation losses: pure functions of the student's and the teacher's outputs.

All of them compute in float32, or in float64 where an input is float64, so that half-precision
labels lose nothing further on the way. They are differentiable in the student only (the teacher's
side is detached), never wait for the device, and give 0 for an empty batch under ``"mean"``.

A ``mask`` of positions leaves out padding: where it is false, nothing that either side or the target holds
counts, NaN included, and no gradient flows. ``"mean"`` then averages over the true positions of this rank;
if there are none the loss is 0.

Shape legend: C classes, B lists, L items of a list, D features, ``...`` any leading dimensions.
"""

from __future__ import annotations

from numbers import Real
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from edldist.errors import ConfigError, InputError

__all__ = ["Reduction", "cosine", "kd", "mse", "ranking"]

Reduction = Literal["mean", "sum", "none"]

# Within these bounds T² and logits / T fit float32.
_LOWEST_TEMPERATURE, _HIGHEST_TEMPERATURE = 1e-6, 1e6
# Above, softened distributions are so alike that float32 loses their divergence: it shrinks with 1 / T².
_WIDE_TEMPERATURE = 16.0
# Makes a normal number of every denormal one, of float32 and of float64.
_RAISING = 2.0**64
_IGNORE_INDEX = -100
_REDUCTIONS = ("mean", "sum", "none")


def kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 4.0,
    alpha: float = 0.9,
    mask: Tensor | None = None,
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
            of -100 (torch's ``ignore_index``) adds no cross-entropy, but its position has a soft term and
            counts in the mean: leave padding out by the mask. May be left out when ``alpha`` is 1.
        temperature: T, from 1e-6 to 1e6. Above 16 the soft term is computed in float64.
        alpha: weight of the soft term, from 0 to 1.
        mask: bool [...], true where a position counts, in both terms; None for all.
        reduction: ``"mean"`` over all positions that count, ``"sum"``, or ``"none"``.

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
    student, teacher = _masked("kd", mask, -1, student, teacher)
    loss = student.new_zeros(student.shape[:-1])
    if alpha > 0.0:
        loss = loss + alpha * _softened_kl(student, teacher, temperature)
    if target is not None:
        hard_target = _checked_target(student, target)
        if alpha < 1.0:
            loss = loss + (1.0 - alpha) * _cross_entropy(student, hard_target, mask)
    return _reduce(loss, reduction, mask)


def mse(
    student_features: Tensor,
    teacher_features: Tensor,
    *,
    normalize: bool = False,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Squared distance of each feature from the teacher's.

    Args:
        student_features: float [..., D].
        teacher_features: the same shape, on the student's device.
        normalize: scale the vectors along the last dimension to length 1 first, so that only their
            direction counts. A zero vector stays zero, with no gradient, and one whose components are all
            below 1.2e-38 (float64: 2.3e-308) has no gradient either.
        mask: bool [...], true where a vector counts; None for all.
        reduction: ``"mean"`` over all *elements* that count as in torch, ``"sum"``, or ``"none"``.

    Returns:
        Scalar, or the inputs' shape with ``"none"``; float32, or float64 where an input is float64.

    Raises:
        InputError: shapes, dtypes or devices do not fit.
        ConfigError: ``reduction`` is unknown.
    """
    _check_reduction("mse", reduction)
    student, teacher = _checked_pair("mse", "features", student_features, teacher_features)
    student, teacher = _masked("mse", mask, -1, student, teacher)
    if normalize:
        student, teacher = _unit(student, -1), _unit(teacher, -1)
    return _reduce((student - teacher) ** 2, reduction, mask)


def cosine(
    student_features: Tensor,
    teacher_features: Tensor,
    *,
    dim: int = -1,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """One minus the cosine of the angle to the teacher's vectors: 0 aligned, 1 orthogonal, 2 opposed.

    Args:
        student_features: float, any shape with ``dim``.
        teacher_features: the same shape, on the student's device.
        dim: the dimension that holds a vector, of whatever length. A zero vector counts as orthogonal, with
            no gradient. One whose components are all below 1.2e-38 (float64: 2.3e-308) counts by its
            direction, with no gradient either, which would be too large for the dtype.
        mask: bool of the shape without ``dim``, true where a vector counts; None for all.
        reduction: ``"mean"`` over all vectors that count, ``"sum"``, or ``"none"``.

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
    student, teacher = _masked("cosine", mask, dim, student, teacher)
    loss = 1.0 - (_unit(student, dim) * _unit(teacher, dim)).sum(dim=dim)
    if mask is not None:
        loss = loss.masked_fill(~mask, 0.0)
    return _reduce(loss, reduction, mask)


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
    _check_reduction("ranking", reduction)
    temperature = _checked_temperature("ranking", temperature)
    student, teacher = _checked_pair("ranking", "scores", student_scores_BL, teacher_scores_BL)
    if mask is None:
        return _reduce(_softened_kl(student, teacher, temperature), reduction)
    _check_mask("ranking", "scores", student.shape, student.device, mask)
    # The lowest finite score, not -inf: a list without any item is then uniform on both sides,
    # with loss 0 and gradient 0, where -inf would give NaN.
    lowest = torch.finfo(student.dtype).min * min(1.0, temperature)
    student, teacher = student.masked_fill(~mask, lowest), teacher.masked_fill(~mask, lowest)
    return _reduce(_softened_kl(student, teacher, temperature), reduction, mask.any(dim=-1))


def _softened_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² * KL(softmax(teacher / T) || softmax(student / T)) along the last dimension."""
    dtype = student.dtype
    if temperature > _WIDE_TEMPERATURE:
        student, teacher = student.double(), teacher.double()
    log_q = F.log_softmax(student / temperature, dim=-1)
    log_p = F.log_softmax(teacher / temperature, dim=-1)
    p = log_p.exp()
    # 0 * log 0 is 0 in a KL divergence, and NaN in floating point. Not `p > 0`: a teacher's NaN must
    # show in the loss.
    kl = torch.where(p == 0, 0.0, p * (log_p - log_q)).sum(dim=-1)
    return (temperature**2 * kl).to(dtype)


def _cross_entropy(student: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """Cross-entropy of each leading position; torch alone would look for the classes in dimension 1."""
    if target.is_floating_point():
        if mask is not None:
            target = target.masked_fill(~mask.unsqueeze(-1), 0.0)
        # As above: a class that neither side gives a chance adds 0, where torch has 0 * -inf.
        products = target * F.log_softmax(student, dim=-1)
        return -torch.where(target == 0, 0.0, products).sum(dim=-1)
    if mask is not None:
        target = target.masked_fill(~mask, _IGNORE_INDEX)
    flat = student.reshape(-1, student.shape[-1])
    each = F.cross_entropy(flat, target.reshape(-1), ignore_index=_IGNORE_INDEX, reduction="none")
    return each.reshape(student.shape[:-1])


def _unit(vectors: Tensor, dim: int) -> Tensor:
    """Vectors of length 1; a zero vector stays zero, with no gradient.

    torch's ``normalize`` and ``cosine_similarity`` give it one of 1e8 and more, which a single dead
    unit's features would send through the whole student. They also take the length of what they are
    given, whose squares leave float32 beyond 1e19 and below 1e-19: here the largest component is made 1
    first. As length does not matter to a direction, that factor needs no gradient.

    Nor has a vector one whose components are all below the smallest normal number (1.2e-38): its gradient is
    as much larger, and leaves the dtype. Its direction counts: a power of two brings it where dividing works.
    """
    tiny = vectors.detach().abs().amax(dim=dim, keepdim=True) < torch.finfo(vectors.dtype).tiny
    vectors = torch.where(tiny, vectors.detach() * _RAISING, vectors)
    largest = vectors.detach().abs().amax(dim=dim, keepdim=True)
    zero = largest == 0  # false for NaN, which must show in the loss
    scaled = vectors / largest.masked_fill(zero, 1.0)
    length: Tensor = torch.linalg.vector_norm(scaled, dim=dim, keepdim=True)
    return (scaled / length.masked_fill(zero, 1.0)).masked_fill(zero, 0.0)


def _masked(loss: str, mask: Tensor | None, dim: int, *sides: Tensor) -> tuple[Tensor, ...]:
    """Both sides with 0 where a position does not count."""
    if mask is None:
        return sides
    shape = list(sides[0].shape)
    del shape[dim]
    _check_mask(loss, "positions", torch.Size(shape), sides[0].device, mask)
    return tuple(side.masked_fill(~mask.unsqueeze(dim), 0.0) for side in sides)


def _reduce(loss: Tensor, reduction: Reduction, mask: Tensor | None = None) -> Tensor:
    """Reduce a loss that is 0 where the mask is false; each of its positions may have several values."""
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if mask is None:
        return loss.sum() / max(1, loss.numel())
    each = loss.numel() // max(1, mask.numel())
    return loss.sum() / (mask.sum() * each).clamp(min=1)


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


def _check_mask(loss: str, what: str, shape: torch.Size, device: torch.device, mask: Tensor) -> None:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise InputError(
            f"losses.{loss}: the mask is {found}: it must be a bool tensor, true for what counts"
        )
    if mask.shape != shape or mask.device != device:
        raise InputError(
            f"losses.{loss}: the mask has shape {list(mask.shape)} on {mask.device}, the {what} "
            f"{list(shape)} on {device}: they must agree"
        )


def _check_reduction(loss: str, reduction: str) -> None:
    if reduction not in _REDUCTIONS:
        raise ConfigError(f"losses.{loss}: reduction={reduction!r} is unknown: use one of {_REDUCTIONS}")


def _checked_temperature(loss: str, temperature: float) -> float:
    # Only plain numbers: comparing a tensor with 0 would wait for its device.
    if not _is_number(temperature) or not _LOWEST_TEMPERATURE <= temperature <= _HIGHEST_TEMPERATURE:
        raise ConfigError(
            f"losses.{loss}: temperature={temperature!r} must be a number from {_LOWEST_TEMPERATURE:g} to "
            f"{_HIGHEST_TEMPERATURE:g}"
        )
    return float(temperature)


def _checked_alpha(alpha: float) -> float:
    if not _is_number(alpha) or not 0.0 <= alpha <= 1.0:
        raise ConfigError(f"losses.kd: alpha={alpha!r} must be a number from 0 to 1")
    return float(alpha)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
