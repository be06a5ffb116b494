"""One text, cut by two tokenizers: where both cut it, and which tokens lie in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edldist.errors import InputError

__all__ = ["Alignment", "align"]

_Ends = tuple[NDArray[np.int64], NDArray[np.int64]]


class Alignment(NamedTuple):
    """Where the tokens of a student and of a teacher end at the same place of a text.

    After such a token both have read the same, and say what comes next. Between two of them lies a *span*:
    the same piece of text, in one or several tokens of either side.

    Attributes:
        teacher_at: int64 [B, S], for each token of the student the teacher's that ends where it does, or -1.
        student_spans: int64 [B, S], the number of the span in which a token lies, counted over the batch, or
            -1.
        teacher_spans: int64 [B, R], the same of the teacher's tokens.
        spans: how many there are.
    """

    teacher_at: Tensor
    student_spans: Tensor
    teacher_spans: Tensor
    spans: int

    @property
    def mask(self) -> Tensor:
        """Bool [B, S]: where the teacher has a token that ends where the student's does."""
        return self.teacher_at >= 0

    def bring(self, labels: Mapping[str, Any]) -> dict[str, Any]:
        """Labels of the teacher's tokens at those of the student's that end where they do.

        Args:
            labels: as a ``DistillLoader`` gives them: tensors [B, R, ...], or typed labels of such, and
                perhaps ``mask``.

        Returns:
            The same of [B, S, ...]. What stands elsewhere is without meaning: ``mask``, bool [B, S], says
            where there are labels.

        Raises:
            InputError: they are of other positions.
        """
        brought = {name: self._brought(name, value) for name, value in labels.items()}
        at = self.mask
        known = brought.get("mask")
        return brought | {"mask": at if known is None else at.to(known.device) & known}

    def _brought(self, name: str, value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            of = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return dataclasses.replace(
                value, **{n: self._brought(name, each) for n, each in of.items() if isinstance(each, Tensor)}
            )
        rows, length = self.teacher_spans.shape
        if not isinstance(value, Tensor) or value.shape[:2] != (rows, length):
            found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"labels {name!r} are {found}, and the teacher's tokens [{rows}, {length}]")
        at = self.teacher_at.to(value.device).clamp(min=0)
        return value[torch.arange(rows, device=value.device).unsqueeze(-1), at]


def align(student: Tensor, teacher: Tensor) -> Alignment:
    """Align two tokenizations of the same texts by where their tokens end.

    Args:
        student: int [B, S, 2], first character of each token and the one behind its last, as tokenizers give
            with ``return_offsets_mapping=True``. Tokens that are no text (padding, special ones) are empty:
            (0, 0).
        teacher: int [B, R, 2].

    Raises:
        InputError: shapes do not fit, or a text is not read from its beginning to its end.
    """
    for side, offsets in (("student", student), ("teacher", teacher)):
        if offsets.ndim != 3 or offsets.shape[2] != 2 or offsets.is_floating_point():
            raise InputError(
                f"the {side}'s offsets are {offsets.dtype}{list(offsets.shape)}: they must be integers [B, "
                "tokens, 2]"
            )
    if student.shape[0] != teacher.shape[0]:
        raise InputError(f"{student.shape[0]} texts of the student, and {teacher.shape[0]} of the teacher")
    ours, theirs = student.cpu().numpy(), teacher.cpu().numpy()
    at = np.full(ours.shape[:2], -1, np.int64)
    spans = np.full(ours.shape[:2], -1, np.int64), np.full(theirs.shape[:2], -1, np.int64)
    count = 0
    for row in range(len(ours)):
        sides = [_ends("student", row, ours[row]), _ends("teacher", row, theirs[row])]
        _, in_ours, in_theirs = np.intersect1d(
            sides[0][1], sides[1][1], assume_unique=True, return_indices=True
        )
        cuts = sides[0][0][in_ours], sides[1][0][in_theirs]
        at[row, cuts[0]] = cuts[1]
        count += _number(row, cuts, (ours[row], theirs[row]), spans, count)
    return Alignment(torch.from_numpy(at), torch.from_numpy(spans[0]), torch.from_numpy(spans[1]), count)


def _ends(side: str, row: int, offsets: NDArray[np.int64]) -> _Ends:
    """The tokens at whose end all of the text up to there is read, and that end."""
    tokens = np.flatnonzero(offsets[:, 1] > offsets[:, 0])
    ends = offsets[tokens, 1]
    if (back := np.flatnonzero(ends[1:] < ends[:-1])).size:
        raise InputError(
            f"text {row} of the {side}: token {tokens[back[0] + 1]} ends at character {ends[back[0] + 1]}, "
            "before "
            f"the one before it ({ends[back[0]]}): one text at a time can be aligned"
        )
    # A character of several tokens ends with the last of them.
    last = np.append(ends[1:] != ends[:-1], True)[: len(ends)]
    return tokens[last], ends[last]


def _number(
    row: int,
    cuts: tuple[NDArray[np.int64], NDArray[np.int64]],
    offsets: tuple[NDArray[np.int64], NDArray[np.int64]],
    spans: tuple[NDArray[np.int64], NDArray[np.int64]],
    first: int,
) -> int:
    """Write the numbers of one text's spans; how many there are."""
    if not len(cuts[0]):
        return 0
    real = [np.flatnonzero(each[:, 1] > each[:, 0]) for each in offsets]
    # Nobody says how probable the first token of all is: what comes before it is no token.
    skip = 0 if all(tokens[0] > 0 for tokens in real) else 1
    for side in (0, 1):
        number = np.searchsorted(cuts[side], real[side])  # the span that ends at, or behind, a token
        inside = (number >= skip) & (number < len(cuts[side]))
        spans[side][row, real[side][inside]] = first + number[inside] - skip
    return len(cuts[0]) - skip
