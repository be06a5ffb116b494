"""What labels say about a distribution, brought together with the student's: both over the same entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edldist.errors import ConfigError, InputError
from edldist.labels.typed import GatheredLabels, HiddenLabels, Labels, SampledLabels, TopKLabels
from edldist.losses.checks import check_pair, checked_temperature
from edldist.losses.formulas import scale, softened
from edldist.losses.projection import Head, Projection, project
from edldist.losses.rows import Rows, Student, dtype_of, flat_rows, shape_of

__all__ = ["Support", "check_labels", "drawn_rows", "support_of", "told_temperature"]

Pair = Callable[..., tuple[Tensor, Tensor]]
"""From a student's logits [n, V] and rows of constants to (log p, log q) over the same entries, [n, S]."""


@dataclass(frozen=True, slots=True)
class Support:
    """A teacher's distribution as far as labels tell it.

    Attributes:
        constants: tensors of the labels, [R, ...].
        pair: makes log-probabilities of some rows.
        dtype: to compute in.
        temperature: T of both.
    """

    constants: list[Tensor]
    pair: Pair
    dtype: torch.dtype
    temperature: float

    def rows(self, formula: Callable[[Tensor, Tensor], Tensor]) -> Rows:
        """``T²`` times a formula of (log p, log q), each [n, S]; T² keeps gradients of one size at any T."""

        def of(logits: Tensor, *constants: Tensor) -> Tensor:
            return (self.temperature**2 * formula(*self.pair(logits, *constants))).to(logits.dtype)

        return Rows(of, self.constants, self.dtype)


def drawn_rows(loss: str, student: Student, labels: SampledLabels, temperature: float | None) -> Rows:
    """``T²`` times the cross-entropy ``-sum(w * log q)`` with drawn entries.

    Raises:
        InputError, ConfigError: as of ``support_of``.
    """
    leading = labels.ids.shape[:-1]
    check_labels(loss, student, leading, labels.vocabulary, labels.ids.device)
    t = told_temperature(loss, labels.temperature, temperature)

    def of(logits: Tensor, ids: Tensor, probs: Tensor) -> Tensor:
        scaled = scale(logits, t)
        log_q = scaled.gather(-1, ids) - scaled.logsumexp(dim=-1, keepdim=True)
        # A class to which the student gives no chance is an infinite loss; if it has no weight, it is none.
        each = probs * log_q.masked_fill(probs == 0, 0.0)
        return (-(t**2) * each.sum(dim=-1)).to(logits.dtype)

    return Rows(
        of, [flat_rows(tensor, len(leading)) for tensor in (labels.ids, labels.probs)], dtype_of(student)
    )


def support_of(
    loss: str,
    student: Student,
    labels: Labels,
    temperature: float | None,
    teacher_head: Head | None = None,
    sampled: str = "",
) -> Support:
    """Bring labels and student together.

    Args:
        temperature: T; None: that of the labels, 1 for logits and hidden states.
        teacher_head: that turns ``HiddenLabels`` into logits.
        sampled: why ``SampledLabels`` cannot serve this loss.

    Raises:
        InputError: shapes, dtypes, devices or vocabularies do not fit.
        ConfigError: these labels cannot serve this loss without bias, or not at this temperature, or the
            teacher's head is missing, or has no use.
    """
    if teacher_head is not None and not isinstance(labels, HiddenLabels):
        raise ConfigError(
            f"losses.{loss}: a teacher_head is given for labels that are no hidden states: leave it out"
        )
    if isinstance(labels, TopKLabels):
        return _top_k(loss, student, labels, temperature)
    if isinstance(labels, HiddenLabels):
        return _hidden(loss, student, labels, temperature, teacher_head)
    if isinstance(labels, SampledLabels):
        raise ConfigError(f"losses.{loss}: labels of codec rs or head+rs cannot serve it: {sampled}")
    if isinstance(labels, GatheredLabels):
        raise ConfigError(
            f"losses.{loss}: labels of codec gather tell the probabilities of the tokens that were asked "
            "for, and nothing of the others, so this loss would be biased: use losses.policy_gradient, or "
            "codec topk, rs or hidden"
        )
    return _logits(loss, student, labels, temperature)


def _logits(loss: str, student: Student, labels: Tensor, temperature: float | None) -> Support:
    dtype = _checked(loss, student, labels)
    t = checked_temperature(loss, 1.0 if temperature is None else temperature)

    def pair(logits: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        return softened(teacher.to(logits.dtype), t), softened(logits, t)

    return Support([flat_rows(labels, labels.ndim - 1)], pair, dtype, t)


def _hidden(
    loss: str, student: Student, labels: HiddenLabels, temperature: float | None, head: Head | None
) -> Support:
    if head is None:
        raise ConfigError(
            f"losses.{loss}: labels of codec hidden are hidden states: give the teacher's head, "
            "teacher_head=losses.Head(weight, bias)"
        )
    if not isinstance(head, Head):
        raise InputError(
            f"losses.{loss}: teacher_head is a {type(head).__name__}: give losses.Head(weight, bias)"
        )
    check_labels(loss, student, labels.hidden.shape[:-1], head.vocabulary, labels.hidden.device)
    if head.weight.shape[1] != labels.hidden.shape[-1] or head.weight.device != labels.hidden.device:
        raise InputError(
            f"losses.{loss}: the teacher's head of shape {list(head.weight.shape)} on {head.weight.device} "
            f"does not fit its hidden states of {labels.hidden.shape[-1]} on {labels.hidden.device}"
        )
    if labels.head != head.digest:
        raise InputError(
            f"losses.{loss}: teacher_head is not the head of the teacher whose hidden states these are: its "
            f"digest is {head.digest}, theirs {labels.head}. Take weight and bias of the model that labels"
        )
    t = checked_temperature(loss, 1.0 if temperature is None else temperature)
    parts = [part.detach() for part in head.parts]

    def pair(logits: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        # In the head's dtype: a product in bfloat16 would lose more than the hidden states have lost.
        teacher = project(hidden.to(max(parts[0].dtype, torch.float32, key=lambda d: d.itemsize)), *parts)
        return softened(teacher.to(logits.dtype), t), softened(logits, t)

    return Support([flat_rows(labels.hidden, labels.hidden.ndim - 1)], pair, dtype_of(student), t)


def _top_k(loss: str, student: Student, labels: TopKLabels, temperature: float | None) -> Support:
    leading = labels.log_tail.shape
    check_labels(loss, student, leading, labels.vocabulary, labels.ids.device)
    t = told_temperature(loss, labels.temperature, temperature)

    def pair(logits: Tensor, ids: Tensor, log_probs: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
        kept = log_probs != -torch.inf
        # An entry that was left out is one of all others: its place is taken by the first, which never is.
        ids = torch.where(kept, ids, ids[:, :1])
        scaled = scale(logits, t)
        entries = scaled.gather(-1, ids).masked_fill(~kept, -torch.inf)
        log_q = torch.cat([entries, _log_sum_of_others(scaled, ids).unsqueeze(-1)], dim=-1).log_softmax(
            dim=-1
        )
        return torch.cat([log_probs, tail.unsqueeze(-1)], dim=-1).to(log_q.dtype), log_q

    constants = [
        flat_rows(tensor, len(leading)) for tensor in (labels.ids, labels.log_probs, labels.log_tail)
    ]
    return Support(constants, pair, dtype_of(student), t)


def _log_sum_of_others(scaled: Tensor, ids: Tensor) -> Tensor:
    """``logsumexp`` of all entries of a row but these, [n]; ``-inf``, and no gradient, if there are none.

    Not by what these leave of 1: of a sum near 1 nothing is left in floating point.
    """
    others = scaled.scatter(-1, ids, -torch.inf)
    none = others.detach().amax(dim=-1) == -torch.inf
    return others.masked_fill(none.unsqueeze(-1), 0.0).logsumexp(dim=-1).masked_fill(none, -torch.inf)


def told_temperature(loss: str, told: float, temperature: float | None) -> float:
    """The temperature of labels, if no other one is asked for.

    Raises:
        ConfigError: it is.
    """
    if temperature is not None and checked_temperature(loss, temperature) != told:
        raise ConfigError(
            f"losses.{loss}: temperature={temperature:g}, and the labels tell probabilities at {told:g}, of "
            "which those at another one do not follow: give their codec that temperature (topk:K:"
            f"{temperature:g}, rs:N:{temperature:g} ...), or leave temperature out"
        )
    return told


def check_labels(
    loss: str, student: Student, leading: Sequence[int], vocabulary: int, device: torch.device
) -> None:
    """Raises:
    InputError: labels of these positions and this vocabulary, there, are none of the student's logits.
    """
    shape = shape_of(student)
    if list(shape[:-1]) != list(leading):
        raise InputError(
            f"losses.{loss}: the student's logits have shape {list(shape)}, and there are labels of "
            f"positions {list(leading)}: all but the last dimension must agree"
        )
    if shape[-1] != vocabulary:
        raise InputError(
            f"losses.{loss}: the student has logits of {shape[-1]:,} entries, and the labels are of a "
            f"vocabulary of {vocabulary:,}: they must agree. Of one that is padded, or other, "
            "DistillLoader(vocabulary=...) makes the student's (docs/vocabularies.md)"
        )
    rows = student.hidden if isinstance(student, Projection) else student
    if not rows.is_floating_point():
        raise InputError(f"losses.{loss}: the student's logits are {rows.dtype}: they must be floating point")
    if rows.device != device:
        raise InputError(
            f"losses.{loss}: the student's logits are on {rows.device}, the labels on {device}: move one"
        )


def _checked(loss: str, student: Student, teacher: Tensor) -> torch.dtype:
    if not isinstance(student, Projection):
        return check_pair(loss, "logits", student, teacher)
    if not isinstance(teacher, Tensor):
        raise InputError(f"losses.{loss}: the teacher's logits are {type(teacher).__name__}, not a tensor")
    if teacher.ndim == 0 or teacher.is_complex():
        raise InputError(f"losses.{loss}: the teacher's logits are {teacher.dtype}{list(teacher.shape)}")
    check_labels(loss, student, teacher.shape[:-1], teacher.shape[-1], teacher.device)
    wide = torch.float64 in (student.hidden.dtype, teacher.dtype)
    return torch.float64 if wide else torch.float32
