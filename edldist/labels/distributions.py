"""What codecs of distributions have in common: which outputs these are, and under what names they travel.

A distribution is a floating-point output [B, ..., V] that is called ``logits``, or whose name ends in
``_logits``: ``softmax(logits / T)`` over its last dimension. It travels as one tensor, ``logits.topk@50257``:
the output, the part, and the size of the vocabulary, which the decoder needs. Names are what students
compare, so a worker with another vocabulary is refused, and nothing is paid for that per token. Every other
output travels as it is.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from edldist.errors import CodecError, LabelError, UnfitCodecError
from edldist.labels.head import logits_width
from edldist.labels.packing import NO_INPUTS, Codec, Packed
from edldist.labels.places import Where, in_samples
from edldist.labels.rows import Rows, chunks

__all__ = ["DistributionCodec", "Part", "columns_of", "is_distribution", "of_other_outputs"]

_NAME = re.compile(r"(?P<output>.+)\.(?P<part>[a-z0-9+]+)@(?P<mark>[0-9a-f]+)")


def is_distribution(name: str, tensor: Tensor) -> bool:
    """Whether an output is logits of classes, or of a vocabulary: samples first, classes last."""
    named = name == "logits" or name.endswith("_logits")
    return named and tensor.is_floating_point() and tensor.dim() > 1


class Part(NamedTuple):
    """Under what name an output travels that a codec has packed.

    Attributes:
        output: its own name.
        part: what of it travels.
        mark: what all workers must agree about: the size of the vocabulary, the digest of a head.
    """

    output: str
    part: str
    mark: str

    @classmethod
    def parse(cls, name: str) -> Part | None:
        """The part of a name; None if it is no such name."""
        found = _NAME.fullmatch(name)
        return None if found is None else cls(**found.groupdict())

    def __str__(self) -> str:
        return f"{self.output}.{self.part}@{self.mark}"


def of_other_outputs(outputs: Mapping[str, Tensor], codec: Codec, wanted: str) -> dict[str, Tensor]:
    """Outputs that travel as they are.

    Args:
        outputs: all that the codec does not pack.
        wanted: what the codec packs, for the message, if there is none such; else empty.

    Raises:
        UnfitCodecError: there is none, or one of the others has a name that a packed one may have.
    """
    if wanted:
        there = ", ".join(f"{name!r} {list(tensor.shape)}" for name, tensor in outputs.items())
        raise UnfitCodecError(
            f"codec {codec.spec} packs {wanted}, and the model's outputs are {there}. Return it under such a "
            "name, or take codec dense"
        )
    for name in outputs:
        if Part.parse(name) is not None:
            raise UnfitCodecError(
                f"output {name!r}: codec {codec.spec} gives such names to what it packs. Call it otherwise"
            )
    return dict(outputs)


def columns_of(name: str, tensor: Tensor, columns: int, dtype: torch.dtype) -> None:
    """Check what came under a name.

    Raises:
        LabelError: it is not what was packed.
    """
    if tensor.dim() < 1 or tensor.shape[-1] != columns or tensor.dtype is not dtype:
        raise LabelError(
            f"labels {name!r} are {tensor.dtype}{list(tensor.shape)}; they must be {dtype} with {columns} "
            f"columns"
        )


class DistributionCodec(Codec):
    """Packs each row of a distribution into a few columns."""

    part: ClassVar[str]
    """Names what travels."""
    picks: int
    """How many entries of a row are looked for, about."""
    keeps: tuple[str, int] | None = None
    """How many entries a row needs at least, under the letter of the grammar; None: any number will do."""

    def serving(self, model: Any) -> Codec:
        if (classes := logits_width(model)) is not None:
            self._fit_classes("logits", classes, f"of the model ({type(model).__name__})")
        return self

    def pack(
        self, outputs: Mapping[str, Tensor], asked: Mapping[str, Tensor] = NO_INPUTS, *, fixed: bool = False
    ) -> Packed:
        packed = self._others(outputs)
        flags = []
        for name, logits in self._distributions(outputs):
            packed[str(Part(name, self.part, str(logits.shape[-1])))], sound = self._pack(
                name, logits, asked, fixed
            )
            flags.append(sound)
        return Packed(packed, torch.stack(flags).all() if len(flags) > 1 else flags[0])

    def check(
        self,
        outputs: Mapping[str, Tensor],
        asked: Mapping[str, Tensor] = NO_INPUTS,
        where: Where = in_samples,
    ) -> None:
        self._others(outputs)
        for name, logits in self._distributions(outputs):
            self.fit(name, logits, asked)
            self._refuse_unsound(name, logits, where)

    def decode(self, packed: Mapping[str, Tensor]) -> dict[str, Any]:
        labels: dict[str, Any] = {}
        for name, tensor in packed.items():
            part = Part.parse(name)
            if part is None:
                labels[name] = tensor
                continue
            vocabulary = int(part.mark) if part.mark.isdecimal() else 0
            if part.part != self.part or vocabulary < 1:
                raise LabelError(f"labels {name!r} are none of codec {self.spec}")
            labels[part.output] = self.unpack(name, tensor, vocabulary)
        return labels

    # --- what a codec adds ----------------------------------------------------------------------------

    def fit(self, name: str, logits: Tensor, asked: Mapping[str, Tensor]) -> None:
        """Look at shapes.

        Raises:
            UnfitCodecError: they cannot be packed.
        """
        self._fit_classes(name, logits.shape[-1], f"(its shape is {list(logits.shape)})")

    def _fit_classes(self, name: str, classes: int, which: str) -> None:
        if self.keeps is not None and self.keeps[1] > classes:
            letter, wanted = self.keeps
            raise UnfitCodecError(
                f"codec {self.spec} keeps {letter}={wanted} entries, and output {name!r} {which} has "
                f"{classes}: lower {letter} to {classes} at most, or take codec dense"
            )

    @abstractmethod
    def pack_rows(self, rows: Rows, asked: Tensor | None, fixed: bool) -> tuple[Tensor, Tensor]:
        """Columns [R, ...] of one dtype, and whether each row could be packed, bool [R]."""

    @abstractmethod
    def columns(self, vocabulary: int, asked: Tensor | None) -> tuple[int, torch.dtype]:
        """How many columns there are, and of what dtype."""

    @abstractmethod
    def unpack(self, name: str, columns: Tensor, vocabulary: int) -> Any:
        """Labels of what ``pack_rows`` made, [..., columns].

        Raises:
            LabelError: it is nothing that could have been packed.
        """

    def asked_of(self, logits: Tensor, asked: Mapping[str, Tensor]) -> Tensor | None:
        """What the student asks about each row, [R, ...], on the device of the logits."""
        return None

    # --- outputs --------------------------------------------------------------------------------------

    def _distributions(self, outputs: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        return ((name, tensor) for name, tensor in outputs.items() if is_distribution(name, tensor))

    def _others(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        others = {name: tensor for name, tensor in outputs.items() if not is_distribution(name, tensor)}
        none = len(others) == len(outputs)
        return of_other_outputs(others, self, "logits [B, ..., V], named so or *_logits" if none else "")

    # Not to keep a graph of what a model returned, nor the whole of what a column is a view of.
    @torch.inference_mode()
    def _pack(
        self, name: str, logits: Tensor, asked: Mapping[str, Tensor], fixed: bool
    ) -> tuple[Tensor, Tensor]:
        vocabulary = logits.shape[-1]
        if not vocabulary:
            raise UnfitCodecError(f"output {name!r} has no classes: its shape is {list(logits.shape)}")
        self.fit(name, logits, asked)
        flat = logits.reshape(-1, vocabulary)
        if flat.is_floating_point() and flat.itemsize == 1:
            flat = flat.to(torch.float16)
        about = self.asked_of(logits, asked)
        count, dtype = self.columns(vocabulary, about)
        made = torch.empty(*logits.shape[:-1], count, dtype=dtype, device=logits.device)
        rows_made = made.view(-1, count)
        sound = torch.ones((), dtype=torch.bool, device=logits.device)
        for rows, part in chunks(flat, self.picks):
            columns, each = self.pack_rows(part, None if about is None else about[rows], fixed)
            rows_made[rows] = columns
            sound &= each.all()
        return made, sound

    def _refuse_unsound(self, name: str, logits: Tensor, where: Where) -> None:
        """Say which row is no distribution.

        Raises:
            CodecError: one is none.
        """
        if not logits.numel():
            return
        values = logits.to(torch.float16) if logits.itemsize == 1 else logits
        largest = values.amax(dim=-1)
        unsound = (~largest.isfinite() | (largest <= torch.finfo(values.dtype).min)).nonzero()
        if not unsound.shape[0]:
            return
        row = unsound[0].tolist()
        value = float(largest[tuple(row)])
        found = "every logit is -inf" if value < 0 else f"a logit is {value}"
        raise CodecError(
            f"output {name!r}: {found} at {where(row)} (in {unsound.shape[0]} of {largest.numel()} rows). A "
            f"class may be left out by a logit of -inf; nothing else that is not finite makes a distribution"
        )
