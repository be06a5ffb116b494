"""Several teachers at once: the loss against each, by its weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from edldist.errors import ConfigError, InputError
from edldist.losses.checks import check_mask, is_number
from edldist.losses.divergences import forward_kl
from edldist.losses.projection import Projection
from edldist.losses.reduction import Reduction, check_reduction, reduce
from edldist.losses.rows import Student, dtype_of, shape_of

__all__ = ["LabelLoss", "ensemble"]

LabelLoss = Callable[..., Tensor]
"""Takes a student's logits, labels, ``mask=`` and ``reduction=``, as the losses of this package do."""

_MASK = "mask"


def ensemble(
    student_logits: Student,
    labels: Mapping[str, Any],
    weights: Mapping[str, float | Tensor] | None = None,
    *,
    loss: LabelLoss | Mapping[str, LabelLoss] = forward_kl,
    temperature: float | Mapping[str, float] | None = None,
    output: str = "logits",
    mask: Tensor | None = None,
    count: Tensor | float | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """``sum(w_t * loss_t) / sum(w_t)`` at each position, t over the teachers that have labels there.

    Weights are relative. Where a teacher has none (it is missing for a while, or saw another part), the
    others take its share, so that every position counts as much as before; a position without any labels
    counts for nothing. With ``forward_kl`` of logits at one temperature this has the gradient of the
    divergence from the weighted mean of the teachers' distributions.

    Args:
        student_logits: float [..., V], or a ``Projection``.
        labels: what a ``DistillLoader`` gives with several teachers: ``"<teacher>/<output>"``, of any codec,
            and ``"<teacher>/mask"`` where there is one: bool, of the first dimensions of a position at least.
        weights: of each teacher, 0 or more: a number, or a tensor of the first dimensions of a position (so
            [B] for one of each sample), which gets no gradient. None: all teachers with such an output alike.
        loss: against each teacher, or one for each by name; ``functools.partial`` gives one more arguments
            (``alpha``, ``target``, ``teacher_head``).
        temperature: for the losses, or for each teacher by name; those that are not named get none, and take
            that of their labels.
        output: which of the teachers' outputs.
        mask: bool [...], true where a position counts; None for all.
        count: what ``"mean"`` divides by instead of the number of positions that count here.
        reduction: ``"mean"`` over all positions that count, ``"sum"``, or ``"none"``.

    Returns:
        Scalar, or [...] with ``"none"``; float32, or float64 where an input is float64. On an accelerator a
        position of negative weight gives NaN: to look would be to wait for the device.

    Raises:
        InputError: a teacher has no labels here, or shapes, dtypes or devices do not fit.
        ConfigError: a weight is negative or not finite, all are 0, or an option is out of range or for a
            teacher that has no weight.
    """
    check_reduction("ensemble", reduction, count)
    shares = _shares(labels, weights, output)
    for name, by_teacher in (("loss", loss), ("temperature", temperature)):
        if isinstance(by_teacher, Mapping) and (strangers := by_teacher.keys() - shares.keys()):
            raise ConfigError(
                f"losses.ensemble: {name} has an entry for {min(strangers)!r}, and there are weights for "
                f"{', '.join(map(repr, shares))}"
            )
    given = student_logits.hidden if isinstance(student_logits, Projection) else student_logits
    positions, device = shape_of(student_logits)[:-1], given.device
    if mask is not None:
        check_mask("ensemble", "positions", positions, device, mask)
    total = norm = torch.zeros(positions, dtype=dtype_of(student_logits), device=device)
    for teacher, weight in shares.items():
        if is_number(weight) and weight == 0:
            continue
        own = _mask_of(labels, teacher, positions, device)
        key = f"{teacher}/{output}"
        if key not in labels:
            if own is None:
                raise InputError(
                    f"losses.ensemble: teacher {teacher!r} has a weight, and there are no labels {key!r} "
                    f"(there are {', '.join(map(repr, labels)) or 'none'})"
                )
            continue  # missing, and nobody knows yet what its labels are like
        share = _share(weight, teacher, positions, device, total.dtype)
        counts = _both(_both(own, mask), None if is_number(weight) else share != 0)
        its_loss = _of(loss, teacher, "loss")
        options = {} if (t := _of(temperature, teacher, None)) is None else {"temperature": t}
        each = its_loss(student_logits, labels[key], mask=counts, reduction="none", **options)
        if not isinstance(each, Tensor) or each.shape != positions:
            found = list(each.shape) if isinstance(each, Tensor) else type(each).__name__
            raise InputError(
                f"losses.ensemble: the loss against teacher {teacher!r} gives {found} with reduction='none', "
                f"and one for each position is needed, {list(positions)}"
            )
        share = share if counts is None else share * counts
        total, norm = total + share * each, norm + share
    # NaN, of a negative weight, is not 0.
    counted = norm != 0
    per_position = total / norm.masked_fill(~counted, 1.0)
    return reduce(per_position, reduction, counted, count)


def _shares(
    labels: Mapping[str, Any], weights: Mapping[str, float | Tensor] | None, output: str
) -> Mapping[str, float | Tensor]:
    """The weight of each teacher: by name, one at least."""
    if not isinstance(labels, Mapping):
        raise InputError(
            f"losses.ensemble: labels are {type(labels).__name__}: give those of a DistillLoader with "
            "several teachers, by '<teacher>/<output>'"
        )
    if weights is None:
        weights = {key[: -len(output) - 1]: 1.0 for key in labels if key.endswith(f"/{output}")}
        if not weights:
            raise InputError(
                f"losses.ensemble: no teacher has labels '<teacher>/{output}' (there are "
                f"{', '.join(map(repr, labels)) or 'none'})"
            )
        return weights
    if not isinstance(weights, Mapping) or not weights:
        raise ConfigError(f"losses.ensemble: weights={weights!r}: give one for each teacher, by name")
    for teacher, weight in weights.items():
        if isinstance(weight, Tensor):
            if not weight.is_floating_point():
                raise ConfigError(
                    f"losses.ensemble: the weights of teacher {teacher!r} are {weight.dtype}, not floating "
                    "point"
                )
            if weight.is_cpu and not ((weight >= 0) & weight.isfinite()).all():
                bad = weight[~((weight >= 0) & weight.isfinite())][0].item()
                raise ConfigError(
                    f"losses.ensemble: the weights of teacher {teacher!r} hold {bad:g}: they must be 0 or "
                    "more, and finite"
                )
        elif not is_number(weight) or not 0 <= weight < float("inf"):
            raise ConfigError(
                f"losses.ensemble: weight {weight!r} of teacher {teacher!r} must be a number of 0 or more, "
                "and finite, or a tensor of such"
            )
    if all(is_number(weight) and weight == 0 for weight in weights.values()):
        raise ConfigError("losses.ensemble: all weights are 0: nothing would be learnt")
    return weights


def _share(
    weight: float | Tensor, teacher: str, positions: torch.Size, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """A weight for each position."""
    if not isinstance(weight, Tensor):
        return torch.full(positions, float(weight), dtype=dtype, device=device)
    share = _spread(weight.detach(), f"the weights of teacher {teacher!r}", positions, device).to(dtype)
    return share if weight.is_cpu else share.where(share >= 0, torch.nan)


def _mask_of(
    labels: Mapping[str, Any], teacher: str, positions: torch.Size, device: torch.device
) -> Tensor | None:
    own = labels.get(f"{teacher}/{_MASK}")
    if own is None:
        return None
    what = f"the mask {f'{teacher}/{_MASK}'!r}"
    if not isinstance(own, Tensor) or own.dtype != torch.bool:
        found = own.dtype if isinstance(own, Tensor) else type(own).__name__
        raise InputError(f"losses.ensemble: {what} is {found}, not a bool tensor")
    return _spread(own, what, positions, device)


def _spread(tensor: Tensor, what: str, positions: torch.Size, device: torch.device) -> Tensor:
    """One entry for each position, of a tensor that has one for each entry of its first dimensions."""
    if tensor.shape != positions[: tensor.ndim] or tensor.device != device:
        raise InputError(
            f"losses.ensemble: {what} have shape {list(tensor.shape)} on {tensor.device}, and the positions "
            f"are {list(positions)} on {device}: one entry for each, or for each of their first dimensions"
        )
    return tensor.reshape(*tensor.shape, *(1,) * (len(positions) - tensor.ndim)).expand(positions)


def _both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _of(option: Any, teacher: str, needed: str | None) -> Any:
    """An option for one teacher."""
    if not isinstance(option, Mapping):
        return option
    if teacher not in option and needed is not None:
        raise ConfigError(
            f"losses.ensemble: {needed} has no entry for teacher {teacher!r}, which has a weight"
        )
    return option.get(teacher)
