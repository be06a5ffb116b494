"""Windows of old verse, a byte a token: five of Shakespeare's sonnets and two of Blake's songs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

TOKENS, WINDOW = 128, 48
TEXT = Path(__file__).resolve().parent / "verse.txt"


class Verse(Dataset[dict[str, Tensor]]):
    """``input_ids`` and ``labels`` int64 [48]: windows of a text that overlap by ``WINDOW - stride``."""

    def __init__(self, text: str, stride: int) -> None:
        tokens = torch.tensor(list(text.encode("ascii")))
        self.windows = tokens.unfold(0, WINDOW, stride)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return {"input_ids": self.windows[number], "labels": self.windows[number]}


def splits() -> tuple[Verse, Verse, Verse]:
    """What the teacher reads; the first quarter of it, which the student gets; the text's end, to test on."""
    text = TEXT.read_text(encoding="ascii")
    end = len(text) * 7 // 8
    return Verse(text[:end], 4), Verse(text[: end // 4], 4), Verse(text[end:], WINDOW)
