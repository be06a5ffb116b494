"""Distances between feature vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from edldist.errors import ConfigError
from edldist.losses.checks import checked_pair
from edldist.losses.reduction import Reduction, check_reduction, masked, reduce

__all__ = ["cosine", "mse"]

# Makes a normal number of every denormal one, of float32 and of float64.
_RAISING = 2.0**64


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
    check_reduction("mse", reduction)
    student, teacher = checked_pair("mse", "features", student_features, teacher_features)
    student, teacher = masked("mse", mask, -1, student, teacher)
    if normalize:
        student, teacher = _unit(student, -1), _unit(teacher, -1)
    return reduce((student - teacher) ** 2, reduction, mask)


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
    check_reduction("cosine", reduction)
    student, teacher = checked_pair("cosine", "features", student_features, teacher_features)
    if not -student.ndim <= dim < student.ndim:
        raise ConfigError(
            f"losses.cosine: dim={dim} does not exist in features of shape {list(student.shape)}: "
            f"choose from {-student.ndim} to {student.ndim - 1}"
        )
    student, teacher = masked("cosine", mask, dim, student, teacher)
    loss = 1.0 - (_unit(student, dim) * _unit(teacher, dim)).sum(dim=dim)
    if mask is not None:
        loss = loss.masked_fill(~mask, 0.0)
    return reduce(loss, reduction, mask)


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
