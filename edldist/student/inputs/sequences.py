"""Sequences in a batch: what a teacher sees of them without their padding, and where their labels belong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edldist.errors import ConfigError, InputError
from edldist.wire.sequences import ASKED, FIRST, MARKS, WHOLE

__all__ = ["PackedSequences", "Sequences"]

Part = str | int | Callable[[Any], Tensor]
"""What names a tensor of a batch: a key, an index, or a function of the batch."""


Flags = NDArray[np.bool_]


class PackedSequences(NamedTuple):
    """What a teacher sees of the sequences of a batch; of those of which nothing is asked, nothing.

    Attributes:
        tensors: tokens [rows, ...] by name, and their marks (``wire.sequences``).
        samples: how many sequences there are.
        lengths, asked: tokens of each, and rows of labels.
        places: int64 [B, S], or [B] for one label of each: the row of a position's labels, or -1.
    """

    tensors: dict[str, Tensor]
    samples: int
    lengths: list[int]
    asked: list[int]
    places: Tensor


class Sequences:
    """``inputs=`` of a ``DistillLoader`` for batches of padded sequences, as collators make them.

    Padding does not travel, nor do labels of tokens that nobody asks for: prompts, say. Labels come back at
    the positions of their tokens, [B, S, ...], NaN (of integers 0) at all others; ``labels["mask"]``, bool
    [B, S], is true where there are some, for the losses' ``mask=``. Pulls, and so a worker's ``batch_size``,
    count tokens.

    Args:
        tokens: the part of a batch that holds them, [B, S, ...], or several such. Their names are those of
            the model's arguments; indices are passed by position. A model that has an ``attention_mask`` gets
            one.
        mask: bool or 0/1 [B, S], true for tokens, false for padding on either side. None: all are tokens.
        asked: bool or 0/1 [B, S], true for the tokens of which labels are wanted. None: all of them.
        whole: one label of each sequence is wanted, [B, ...], not of its tokens: of a classifier, or an
            encoder. ``labels["mask"]`` is bool [B] then, false for sequences without tokens.

    Raises:
        ConfigError: an argument cannot be.
    """

    def __init__(
        self,
        tokens: str | int | Sequence[str | int],
        mask: Part | None = None,
        asked: Part | None = None,
        whole: bool = False,
    ) -> None:
        several = isinstance(tokens, Sequence) and not isinstance(tokens, str)
        keys: tuple[Any, ...] = tuple(tokens) if several else (tokens,)  # type: ignore[arg-type]
        bad = [key for key in keys if not isinstance(key, (str, int)) or isinstance(key, bool) or key == ""]
        if bad or not keys or len(set(keys)) != len(keys):
            raise ConfigError(f"Sequences({tokens!r}): use a key, an index, or several different ones")
        for name, part in (("mask", mask), ("asked", asked)):
            if not (
                part is None
                or callable(part)
                or (isinstance(part, (str, int)) and not isinstance(part, bool))
            ):
                raise ConfigError(
                    f"Sequences({name}={part!r}): use a key, an index, a function of the batch, or None"
                )
        if whole and asked is not None:
            raise ConfigError("Sequences(whole=True) asks for one label of each sequence: leave asked out")
        positions = iter(range(len(keys)))
        self._keys = {str(next(positions)) if isinstance(key, int) else key: key for key in keys}
        self._mask, self._asked, self._whole = mask, asked, whole

    def __call__(
        self, batch: Any, pick: Callable[[Any, Any], Any], only: Flags | None = None
    ) -> tuple[PackedSequences, int]:
        """Pack the sequences of a batch, and count them, those without tokens included.

        Args:
            pick: the entry of a batch of some key.
            only: [B], true for the sequences of which labels are wanted; None: all.

        Raises:
            InputError: something is missing, or shapes do not fit.
        """
        tokens = {name: self._tensor(pick(batch, key), repr(key)) for name, key in self._keys.items()}
        shape = next(iter(tokens.values())).shape[:2]
        for name, tensor in tokens.items():
            if tensor.ndim < 2 or tensor.shape[:2] != shape:
                raise InputError(
                    f"tokens {self._keys[name]!r} have shape {list(tensor.shape)}: they must be [B, S, ...], "
                    f"with the same B and S as the first, {list(shape)}"
                )
        real: Flags = self._flags(batch, self._mask, "mask", shape, pick)
        begins = np.diff(real.astype(np.int8), axis=1, prepend=0) == 1
        if (torn := np.flatnonzero(begins.sum(axis=1) > 1)).size:
            sample = int(torn[0])
            hole = int(np.flatnonzero(begins[sample])[1])
            raise InputError(
                f"mask has a hole in sample {sample}, before position {hole}: padding is on either side of "
                "the tokens, which the teacher sees without it, side by side"
            )
        asked: Flags = real & self._flags(batch, self._asked, "asked", shape, pick)
        if only is not None:
            asked &= only.reshape(-1, 1)
        seen: Flags = np.asarray(asked.any(axis=1))
        real &= seen.reshape(-1, 1)
        rows = torch.from_numpy(np.flatnonzero(real.reshape(-1)))
        packed = {
            name: tensor.reshape(shape[0] * shape[1], *tensor.shape[2:]).index_select(0, rows)
            for name, tensor in tokens.items()
        }
        lengths = real.sum(axis=1)[seen]
        marks = np.where(asked[real], ASKED, 0).astype(np.uint8)
        firsts = np.cumsum(lengths) - lengths
        if self._whole:
            marks[:] = 0
        marks[firsts] |= FIRST | (WHOLE if self._whole else 0)
        packed[MARKS] = torch.from_numpy(marks)
        wanted = seen if self._whole else asked
        places = np.where(wanted, np.cumsum(wanted.reshape(-1)).reshape(wanted.shape) - 1, -1)
        counts = np.ones(len(lengths), np.int64) if self._whole else asked.sum(axis=1)[seen]
        view = PackedSequences(
            packed,
            len(lengths),
            lengths.tolist(),
            counts.tolist(),
            torch.from_numpy(places.astype(np.int64)),
        )
        return view, shape[0]

    def count(self, batch: Any, pick: Callable[[Any, Any], Any]) -> int:
        """How many sequences a batch has.

        Raises:
            InputError: the batch has no such tokens.
        """
        key = next(iter(self._keys.values()))
        tokens = self._tensor(pick(batch, key), repr(key))
        return tokens.shape[0] if tokens.ndim else 0

    def _flags(
        self, batch: Any, part: Part | None, name: str, shape: torch.Size, pick: Callable[[Any, Any], Any]
    ) -> Flags:
        if part is None:
            return np.ones(shape, np.bool_)
        value = self._tensor(part(batch) if callable(part) else pick(batch, part), f"{name}={part!r}")
        if value.shape != shape or value.is_complex():
            raise InputError(
                f"{name} has shape {list(value.shape)}, the tokens {list(shape)}: one entry for each position"
            )
        flags = value.cpu().numpy() if value.dtype == torch.bool else None
        if flags is None:
            if not (fits := (value == 0) | (value == 1)).all():
                sample, position = (~fits).nonzero()[0].tolist()
                raise InputError(
                    f"{name} holds {value[sample, position].item():g} in sample {sample}, at position "
                    f"{position}: it must be bool, or 0 and 1. Of labels with -100 for what does not count, "
                    "ask for the positions before those that count (docs/sequences.md)"
                )
            flags = (value != 0).cpu().numpy()
        return flags.copy()

    @staticmethod
    def _tensor(value: Any, what: str) -> Tensor:
        if not isinstance(value, Tensor):
            raise InputError(f"{what} of the batch is a {type(value).__name__}, not a tensor")
        return value
