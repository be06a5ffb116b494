"""What losses are asked: refused where it makes no sense, in words."""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor

from edldist.errors import ConfigError, InputError

__all__ = [
    "check_ids",
    "check_mask",
    "check_pair",
    "checked_fraction",
    "checked_pair",
    "checked_target",
    "checked_temperature",
    "is_number",
]

# Within these bounds T² and logits / T fit float32.
_LOWEST_TEMPERATURE, _HIGHEST_TEMPERATURE = 1e-6, 1e6


def check_pair(loss: str, kind: str, student: Tensor, teacher: Tensor) -> torch.dtype:
    """The dtype to compute in.

    Raises:
        InputError: shapes, dtypes or devices do not fit.
    """
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
    return torch.float64 if torch.float64 in (student.dtype, teacher.dtype) else torch.float32


def checked_pair(loss: str, kind: str, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides in the dtype to compute in, the teacher's detached.

    Raises:
        InputError: shapes, dtypes or devices do not fit.
    """
    dtype = check_pair(loss, kind, student, teacher)
    return student.to(dtype), teacher.detach().to(dtype)


def checked_target(loss: str, logits: torch.Size, device: torch.device, target: Tensor) -> Tensor:
    """The target if it fits logits of this shape: int64 indices, or floats as they are.

    Raises:
        InputError: it does not.
    """
    if not isinstance(target, Tensor):
        raise InputError(f"losses.{loss}: the target is {type(target).__name__}, not a tensor")
    if target.dtype == torch.bool or target.is_complex():
        raise InputError(
            f"losses.{loss}: the target is {target.dtype}: pass integer class indices or float probabilities"
        )
    floating = target.is_floating_point()
    wanted = logits if floating else logits[:-1]
    if target.shape != wanted:
        meaning = "class probabilities" if floating else "class indices"
        raise InputError(
            f"losses.{loss}: a target of {target.dtype} holds {meaning} and must have shape {list(wanted)} "
            f"for logits of shape {list(logits)}, but has {list(target.shape)}"
        )
    if target.device != device:
        raise InputError(
            f"losses.{loss}: the logits are on {device}, the target on {target.device}: move the "
            f"target with .to({str(device)!r}) first"
        )
    return target if floating else target.to(torch.int64)


def check_ids(
    loss: str,
    name: str,
    ids: Tensor,
    vocabulary: int,
    mask: Tensor | None,
    ignored: int | None = None,
    *,
    among: str = "of the student's {} classes",
    advice: str = "Leave padding out by the mask",
) -> None:
    """Look for ids that the student has no logits for, where that waits for no device.

    Args:
        ids: integers [...], or [..., G].
        mask: of positions [...]: what is there where it is false does not matter.
        ignored: an id that stands for none.
        among: what ids count, for the error, with a place for their number.
        advice: what to do about others.

    Raises:
        InputError: there is one.
    """
    if not ids.is_cpu or not ids.numel():
        return
    outside = (ids < 0) | (ids >= vocabulary)
    if ignored is not None:
        outside &= ids != ignored
    if mask is not None and mask.dtype == torch.bool and mask.shape == ids.shape[: mask.ndim] and mask.is_cpu:
        outside &= mask.reshape(*mask.shape, *(1,) * (ids.ndim - mask.ndim))
    if not bool(outside.any()):
        return
    found = outside.nonzero()
    at = found[0].tolist()
    raise InputError(
        f"losses.{loss}: {name} {int(ids[tuple(at)])} at position {at} is none "
        f"{among.format(f'{vocabulary:,}')}, 0 to {vocabulary - 1:,} (so are {found.shape[0]} of "
        f"{ids.numel()}). " + ("" if ignored is None else f"What does not count is {ignored}. ") + advice
    )


def check_mask(loss: str, what: str, shape: torch.Size, device: torch.device, mask: Tensor) -> None:
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


def checked_temperature(loss: str, temperature: float) -> float:
    # Only plain numbers: comparing a tensor with 0 would wait for its device.
    if not is_number(temperature) or not _LOWEST_TEMPERATURE <= temperature <= _HIGHEST_TEMPERATURE:
        raise ConfigError(
            f"losses.{loss}: temperature={temperature!r} must be a number from {_LOWEST_TEMPERATURE:g} to "
            f"{_HIGHEST_TEMPERATURE:g}"
        )
    return float(temperature)


def checked_fraction(loss: str, name: str, value: float) -> float:
    if not is_number(value) or not 0.0 <= value <= 1.0:
        raise ConfigError(f"losses.{loss}: {name}={value!r} must be a number from 0 to 1")
    return float(value)


def is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
