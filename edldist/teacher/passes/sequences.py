"""Sequences of different lengths through a model: padded in groups of about one length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edldist.errors import ContractError
from edldist.labels.places import Where
from edldist.teacher.model.teacher import Teacher
from edldist.wire.sequences import ASKED, WHOLE, ends_of, labelled_rows

__all__ = ["in_sequences", "label_sequences", "of_tokens"]

_ATTENTION = "attention_mask"
_LEAST_FILLED = 0.75  # of a padded group, so that short sequences are not padded to long ones for nothing


def label_sequences(
    teacher: Teacher, tokens: Mapping[str, Tensor], marks: NDArray[np.uint8], most_tokens: int, fixed: bool
) -> dict[str, Tensor]:
    """Label tokens, or whole sequences.

    The model gets groups of sequences, padded on the right to the longest of the group, with an
    ``attention_mask`` (int64, 1 for tokens) where it takes one. One that takes none gets sequences of exactly
    one length together.

    Args:
        tokens: [rows, ...] by name, samples back to back.
        marks: of the rows (``wire.sequences``).
        most_tokens: that the model gets at once, padding included, unless a single sequence is longer.
        fixed: see ``Teacher``.

    Returns:
        Outputs of the tokens whose labels are asked for, in their order, or of the samples: [labels, ...].

    Raises:
        WireError: the marks are none.
        ContractError: the model's outputs have no positions, or a sequence is longer than its context.
    """
    starts, ends = ends_of(marks)
    lengths = ends - starts
    _check_context(teacher, lengths)
    masked = teacher.takes(_ATTENTION)
    whole = bool(marks[0] & WHOLE)
    device = next(iter(tokens.values())).device
    pieces: list[dict[str, Tensor]] = []
    places: list[NDArray[np.int64]] = []
    for group in _groups(lengths, most_tokens, padded=masked):
        longest = int(lengths[group].max())
        offsets = np.arange(longest)
        real = offsets < lengths[group][:, None]
        rows = np.where(real, starts[group][:, None] + offsets, starts[group][:, None])
        index = torch.from_numpy(rows.reshape(-1)).to(device)
        padded = {
            name: tensor.index_select(0, index).reshape(*rows.shape, *tensor.shape[1:])
            for name, tensor in tokens.items()
        }
        if masked:
            padded[_ATTENTION] = torch.from_numpy(real.astype(np.int64)).to(device)
        outputs = teacher(padded, fixed=fixed)
        if whole:
            for name, out in outputs.items():
                if out.ndim > 2 and out.shape[1] == longest:
                    raise ContractError(
                        f"output {name!r} of model {teacher.path} has shape {list(out.shape)} for "
                        f"{len(group)} sequences of {longest} tokens: it has labels of tokens, and one of "
                        "each is asked for. Leave whole=True out, or choose other outputs (--outputs)"
                    )
            pieces.append(outputs)
            places.append(group)
            continue
        asked = real & (marks[rows] & ASKED != 0)
        chosen = torch.from_numpy(np.flatnonzero(asked.reshape(-1))).to(device)
        pieces.append(
            {name: _of_tokens(teacher, name, out, rows.shape, chosen) for name, out in outputs.items()}
        )
        places.append(rows[asked])
    order = torch.from_numpy(np.argsort(np.concatenate(places), kind="stable")).to(device)
    return {name: torch.cat([piece[name] for piece in pieces])[order] for name in pieces[0]}


def _groups(lengths: NDArray[np.int64], most_tokens: int, padded: bool) -> Iterator[NDArray[np.int64]]:
    """Samples that the model gets together, the shortest first."""
    order = np.argsort(lengths, kind="stable")
    first, tokens = 0, 0
    for at, sample in enumerate(order):
        length = int(lengths[sample])
        area = (at - first + 1) * length
        fits = area <= most_tokens and tokens + length >= _LEAST_FILLED * area
        if at > first and not (fits if padded else fits and tokens + length == area):
            yield order[first:at]
            first, tokens = at, 0
        tokens += length
    yield order[first:]


def _of_tokens(teacher: Teacher, name: str, out: Tensor, shape: tuple[int, ...], chosen: Tensor) -> Tensor:
    if out.ndim < 2 or out.shape[:2] != shape:
        raise ContractError(
            f"output {name!r} of model {teacher.path} has shape {list(out.shape)} for sequences of "
            f"{list(shape)} tokens: labels of tokens need [sequences, tokens, ...]. Choose outputs that have "
            "positions (--outputs), or ask for one label of each sequence, Sequences(..., whole=True)"
        )
    return out.reshape(shape[0] * shape[1], *out.shape[2:]).index_select(0, chosen)


def _check_context(teacher: Teacher, lengths: NDArray[np.int64]) -> None:
    context = teacher.context
    longest = int(lengths.argmax())
    if context is not None and lengths[longest] > context:
        raise ContractError(
            f"model {teacher.path} has a context of {context:,} tokens, and sequence {longest} of the task "
            f"has {int(lengths[longest]):,}: cut sequences where batches are made"
        )


def of_tokens(marks: NDArray[np.uint8]) -> Where:
    """What rows of tokens are called: ``sequence 3 of the task, position 7``, padding left out."""
    starts, _ = ends_of(marks)

    def where(index: Sequence[int]) -> str:
        row, *further = index
        sequence = int(np.searchsorted(starts, row, side="right")) - 1
        more = f", entry {further[0] if len(further) == 1 else tuple(further)}" if further else ""
        return f"sequence {sequence} of the task, position {row - int(starts[sequence])}{more}"

    return where


def in_sequences(marks: NDArray[np.uint8]) -> Where:
    """What rows of labels are called: those of tokens that were asked for, or of whole sequences."""
    if marks[0] & WHOLE:
        return lambda index: f"sequence {index[0]} of the task"
    rows, of_token = labelled_rows(marks), of_tokens(marks)
    return lambda index: of_token([int(rows[index[0]]), *index[1:]])
