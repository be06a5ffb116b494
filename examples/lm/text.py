"""The text: what Python's ``help()`` says of the language, a part of every CPython, a byte a token."""

from __future__ import annotations

import random
from pydoc_data.topics import topics

import torch
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["TOKENS", "WINDOW", "Draws", "held_out", "read"]

TOKENS, WINDOW = 256, 128
SCARCE_BYTES = 24 << 10
_HELD_OUT = 8  # every eighth topic


def read(amount: str) -> Tensor:
    """Tokens to train on, uint8 [n]: ``all`` of them, or ``scarce``: the first 24 KiB."""
    text = _topics(held_out=False)
    return _tokens(text if amount == "all" else text[:SCARCE_BYTES])


def held_out() -> Tensor:
    """Windows of topics that nobody trains on: int64 [N, WINDOW + 1].

    Paragraphs that stand in other topics, too, are left out.
    """
    known = _topics(held_out=False)
    paragraphs = _topics(held_out=True).split("\n\n")
    text = "\n\n".join(paragraph for paragraph in paragraphs if paragraph not in known)
    return _tokens(text).unfold(0, WINDOW + 1, WINDOW)[::2].long()


class Draws(Dataset[dict[str, Tensor]]):
    """``tokens`` int64 [WINDOW + 1] from places in a text that a seed draws: the same draw is the same
    window."""

    def __init__(self, text: Tensor, draws: int, seed: int) -> None:
        chance = random.Random(seed)
        self._text = text
        self._starts = [chance.randrange(len(text) - WINDOW) for _ in range(draws)]

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        start = self._starts[number]
        return {"tokens": self._text[start : start + WINDOW + 1].long()}


def _topics(held_out: bool) -> str:
    names = sorted(topics)
    return "\n".join(topics[name] for at, name in enumerate(names) if (at % _HELD_OUT == 0) == held_out)


def _tokens(text: str) -> Tensor:
    return torch.frombuffer(bytearray(text.encode("utf-8")), dtype=torch.uint8)
