"""Student and teacher that know a text by its words: small, and trained from nothing."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.retrieval.encoders import CrossEncoder, DualEncoder

__all__ = ["WordsCross", "WordsDual", "tokens"]

_HASHES = 8_192
_PADDING = 0


def tokens(texts: Sequence[str]) -> Tensor:
    """Hashes of words, int64 [N, T] from 1 on; 0 behind the end of a text."""
    rows = [[1 + zlib.crc32(word.encode()) % (_HASHES - 1) for word in _cut(text)] for text in texts]
    longest = max([1, *(len(row) for row in rows)])
    return torch.tensor([row + [_PADDING] * (longest - len(row)) for row in rows])


def _cut(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


class WordsDual(DualEncoder):
    """The mean of a text's words, and a layer: 540,864 parameters, nearly all of them embeddings of words."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.words = nn.Embedding(_HASHES, width, padding_idx=_PADDING)
        self.layer = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def embed(self, text: Tensor) -> Tensor:
        there = (text != _PADDING).sum(-1, keepdim=True).clamp(min=1)
        mean = self.words(text).sum(-2) / there.sqrt()
        return F.normalize(mean + self.layer(mean), dim=-1)


class WordsCross(CrossEncoder):
    """Each word of the query looks for its like among those of the passage
    (attend, compare, aggregate: Parikh et al., "A Decomposable Attention Model", 2016)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.words = nn.Embedding(_HASHES, width, padding_idx=_PADDING)
        self.drop = nn.Dropout(0.2)
        self.ask, self.answer = nn.Linear(width, width), nn.Linear(width, width)
        self.compare = nn.Sequential(
            nn.Linear(3 * width + 1, width), nn.GELU(), nn.Linear(width, width), nn.GELU()
        )
        self.judge = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))

    def forward(self, queries: Tensor, passages: Tensor) -> Tensor:
        q = self.drop(self.words(queries)).unsqueeze(1)  # [B, 1, T, D]
        p = self.drop(self.words(passages))  # [B, L, S, D]
        like = self.ask(q) @ self.answer(p).transpose(-1, -2) / math.sqrt(q.shape[-1])  # [B, L, T, S]
        gone = (passages == _PADDING).unsqueeze(-2)
        like = like.masked_fill(gone, -1e4)
        found = like.softmax(-1) @ p  # [B, L, T, D]
        asked = q.expand_as(found)
        best = like.amax(-1, keepdim=True)
        compared = self.compare(torch.cat([asked, found, asked * found, best], -1))
        there = (queries != _PADDING).view(len(queries), 1, -1, 1)
        scores: Tensor = self.judge((compared * there).sum(-2)).squeeze(-1)
        return scores

    def begin_with(self, model: DualEncoder) -> None:
        assert isinstance(model, WordsDual)
        self.words.load_state_dict(model.words.state_dict())
