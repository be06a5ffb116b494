"""From the ids of a teacher's vocabulary to those of a student's, and labels along with them.

What becomes of the teacher's entries that the student has no id for, by codec:

* ``topk``, ``topp``: their probability joins that of the rest, on the student's side all its other entries.
  Nothing is lost but which ones they were. Where every entry of the student's is told there are no others,
  and it is shared out among those.
* ``rs``, ``head+rs``: what was drawn of them counts for nothing, and nothing is scaled up instead, which
  would be biased: a position weighs by the share that the student can say. Unbiased for the cross-entropy
  over the entries that both have.
* ``gather``: the student asks about ids of the teacher's, and gets what it asked for.
* logits (``dense``, ``int8``): entries that are no tokens at all (padding of the vocabulary) are cut, and a
  softmax shares their probability out among the others. Where tokens are missing that would raise every other
  one, more at some positions than at others, and is refused.
* ``hidden``: the head decides; other ids than the student's cannot be had of it, and are refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from edldist.errors import ConfigError, InputError
from edldist.labels.typed import GatheredLabels, HiddenLabels, Labels, SampledLabels, TopKLabels
from edldist.vocabulary.tokens import Tokens

__all__ = ["IdMap", "Mapped"]


class Mapped(NamedTuple):
    """Labels in a student's ids.

    Attributes:
        labels: of the same kind.
        lost: float [...], the probability at each position of entries that the student does not have, as far
            as the labels tell it; None where they tell nothing, or there are none such.
    """

    labels: Labels
    lost: Tensor | None


class IdMap:
    """Which id of the student each id of the teacher is.

    Attributes:
        size: entries of the student's logits.
        covers: how many of the teacher's ids are said; those behind are padding of its vocabulary.
        tokens_missing: whether the student lacks a token, and not padding alone.
    """

    def __init__(self, student_ids: Tensor | Sequence[int], size: int) -> None:
        """Take a map as it is.

        Args:
            student_ids: by the teacher's id: integers from 0 to ``size - 1``, no two alike, or -1 for none.
            size: entries of the student's logits.

        Raises:
            ConfigError: it is no such map.
        """
        try:
            ids = torch.as_tensor(student_ids, device="cpu").detach()
        except (TypeError, ValueError, RuntimeError) as exc:
            raise ConfigError(f"an id map is a list of ids, or -1: {exc}") from exc
        if (
            ids.ndim != 1
            or not len(ids)
            or ids.is_floating_point()
            or ids.is_complex()
            or ids.dtype == torch.bool
        ):
            raise ConfigError(f"an id map is one row of integers, and this one {ids.dtype}{list(ids.shape)}")
        ids = ids.to(torch.int64)
        if (outside := ((ids < -1) | (ids >= size)).nonzero()).shape[0]:
            at = int(outside[0])
            raise ConfigError(
                f"id map: the teacher's id {at} becomes {int(ids[at])}, and the student has ids 0 to "
                f"{size - 1:,} "
                "(-1: none)"
            )
        found = ids[ids >= 0]
        counts = (
            torch.bincount(found, minlength=1)
            if len(found)
            else torch.zeros(1, dtype=torch.int64, device=ids.device)
        )
        if int(counts.max()) > 1:
            twice = int(counts.argmax())
            pair = (ids == twice).nonzero().flatten()[:2].tolist()
            raise ConfigError(f"id map: the teacher's ids {pair[0]} and {pair[1]} both become {twice}")
        if not len(found):
            raise ConfigError("id map: no id of the teacher's is one of the student's")
        self.size = size
        self.covers = len(ids)
        self.tokens_missing = bool((ids < 0).any())
        self._to_student = ids
        self._to_teacher = torch.full((size,), -1, dtype=torch.int64, device=ids.device)
        self._to_teacher[found] = (ids >= 0).nonzero().flatten()
        whole = torch.arange(len(ids), device=ids.device)
        self._prefix = not self.tokens_missing and torch.equal(ids, whole)
        self._placed: dict[tuple[Any, ...], Tensor] = {}

    @classmethod
    def same(cls, tokens: int, size: int) -> IdMap:
        """One vocabulary of so many tokens on both sides, each with padding of its own behind them.

        Raises:
            ConfigError: the student has fewer entries than there are tokens.
        """
        if size < tokens:
            raise ConfigError(f"the student has {size:,} entries for a vocabulary of {tokens:,} tokens")
        return cls(torch.arange(tokens, device="cpu"), size)

    @classmethod
    def of_tokens(cls, teacher: Tokens, student: Tokens, size: int) -> IdMap:
        """The same tokens are the same, whatever their ids. -1 for those of the teacher's alone."""
        ids = student.ids
        first = teacher.ids
        return cls(
            [
                -1 if text is None or first[text] != number else ids.get(text, -1)
                for number, text in enumerate(teacher.texts)
            ],
            size,
        )

    def teacher_ids(self, student_ids: Tensor) -> Tensor:
        """Ids as the teacher has them: what a student that tokenises alike sends to it.

        Args:
            student_ids: integers [...].

        Raises:
            InputError: one is none of the teacher's.
        """
        known = student_ids.clamp(0, self.size - 1).to(torch.int64)
        found = self._on(self._to_teacher, known.device)[known]
        wrong = (found < 0) | (student_ids != known)
        if bool(wrong.any()):
            at = wrong.nonzero()[0].tolist()
            raise InputError(
                f"the student's id {int(student_ids[tuple(at)])} at {at} is no token of the teacher's (so "
                "are "
                f"{int(wrong.sum())} of {wrong.numel()})"
            )
        return found

    def __call__(self, name: str, labels: Labels, *, measured: bool = True) -> Mapped:
        """Labels of the teacher's ids in those of the student.

        Args:
            name: of the output, for messages.
            labels: logits, float [..., V], or typed labels.
            measured: whether to say how much of the probability has no place, which costs a softmax of
                logits.

        Raises:
            ConfigError: labels of this kind cannot be had in other ids without bias.
        """
        if isinstance(labels, GatheredLabels):
            return Mapped(labels, None)
        if isinstance(labels, HiddenLabels):
            if self._prefix:
                return Mapped(labels, None)  # the loss has the head, and says what does not fit
            raise ConfigError(
                f"labels {name!r} are of codec hidden, to which the teacher's head gives the teacher's ids: "
                "they "
                "cannot be had in the student's. Take codec topk, rs or gather"
            )
        vocabulary = labels.shape[-1] if isinstance(labels, Tensor) else labels.vocabulary
        if self._prefix and (vocabulary == self.size or vocabulary < self.covers):
            return Mapped(labels, None)  # it fits as it is, or the loss says that it does not
        if isinstance(labels, Tensor):
            return self._logits(name, labels, measured)
        ids = labels.ids
        found = self._student_ids(ids, vocabulary)
        absent = found < 0
        if isinstance(labels, SampledLabels):
            lost = labels.probs.masked_fill(~absent, 0.0)
            return Mapped(
                dataclasses.replace(
                    labels,
                    ids=found.clamp(min=0),
                    probs=labels.probs.masked_fill(absent, 0.0),
                    vocabulary=self.size,
                ),
                lost.sum(dim=-1),
            )
        return self._top(labels, found, absent)

    def _top(self, labels: TopKLabels, found: Tensor, absent: Tensor) -> Mapped:
        log_lost = labels.log_probs.masked_fill(~absent, -torch.inf).logsumexp(dim=-1)
        log_probs = labels.log_probs.masked_fill(absent, -torch.inf)
        log_tail = torch.logaddexp(labels.log_tail, log_lost).clamp(max=0.0)
        if log_probs.shape[-1] >= self.size:
            # Of a student of whom every entry is told no other is left that could stand for the rest.
            whole = ((log_probs > -torch.inf).sum(dim=-1) == self.size).unsqueeze(-1)
            log_probs = torch.where(whole, log_probs - log_probs.logsumexp(dim=-1, keepdim=True), log_probs)
            log_lost = torch.where(whole.squeeze(-1), log_tail, log_lost)
            log_tail = log_tail.masked_fill(whole.squeeze(-1), -torch.inf)
        # Those that are left out stand last, as losses have it.
        order = log_probs.argsort(dim=-1, descending=True, stable=True)
        return Mapped(
            dataclasses.replace(
                labels,
                ids=found.clamp(min=0).gather(-1, order),
                log_probs=log_probs.gather(-1, order),
                log_tail=log_tail,
                vocabulary=self.size,
            ),
            log_lost.exp(),
        )

    def _logits(self, name: str, logits: Tensor, measured: bool) -> Mapped:
        if self.tokens_missing:
            missing = int((self._to_student < 0).sum())
            raise ConfigError(
                f"labels {name!r} are logits, and the student lacks {missing:,} of the teacher's tokens: a "
                "softmax "
                "over those that are left would raise each of them, more where the others were more "
                "probable. "
                "Take codec topk, whose rest takes them in, or rs"
            )
        if logits.shape[-1] < self.covers:
            raise ConfigError(
                f"labels {name!r} are logits of {logits.shape[-1]:,} entries, and the id map is of "
                f"{self.covers:,} of the teacher's ids"
            )
        if self._prefix:
            mapped = logits[..., : self.covers]
            if self.size > self.covers:
                mapped = torch.nn.functional.pad(mapped, (0, self.size - self.covers), value=-torch.inf)
        else:
            of_teacher = self._on(self._to_teacher, logits.device)
            mapped = logits.index_select(-1, of_teacher.clamp(min=0)).masked_fill(of_teacher < 0, -torch.inf)
        lost = None
        if measured and logits.shape[-1] > self.covers:
            wide = logits.to(max(logits.dtype, torch.float32, key=lambda dtype: dtype.itemsize))
            lost = (wide[..., self.covers :].logsumexp(dim=-1) - wide.logsumexp(dim=-1)).exp()
        return Mapped(mapped, lost)

    def _student_ids(self, ids: Tensor, vocabulary: int) -> Tensor:
        told = self._on(self._to_student, ids.device)
        if vocabulary > self.covers:
            return told[ids.clamp(max=self.covers - 1)].masked_fill(ids >= self.covers, -1)
        return told[ids]

    def _on(self, tensor: Tensor, device: torch.device) -> Tensor:
        """The same, on a device; brought there once."""
        if tensor.device == device:
            return tensor
        key = (tensor is self._to_student, device)
        if key not in self._placed:
            self._placed[key] = tensor.to(device)
        return self._placed[key]
