"""The student, which embeds queries and passages apart, and the teacher, which reads both together."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.retrieval.data import Collection, generated

__all__ = ["CrossEncoder", "DualEncoder", "student", "teacher", "tokens"]

_HASHES = 8_192
_PADDING = 0


def tokens(texts: Sequence[str]) -> Tensor:
    """Hashes of words, int64 [N, T] from 1 on; 0 behind the end of a text."""
    rows = [[1 + zlib.crc32(word.encode()) % (_HASHES - 1) for word in _cut(text)] for text in texts]
    longest = max([1, *(len(row) for row in rows)])
    return torch.tensor([row + [_PADDING] * (longest - len(row)) for row in rows])


def _cut(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


class DualEncoder(nn.Module):
    """Texts to vectors of length 1: the mean of its words' embeddings, and a layer. No query sees a
    passage."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.words = nn.Embedding(_HASHES, width, padding_idx=_PADDING)
        self.layer = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, queries: Tensor, passages: Tensor) -> tuple[Tensor, Tensor]:
        """Of tokens [B, T] and [..., S]: float32 [B, D] and [..., D]."""
        return self.embed(queries), self.embed(passages)

    def embed(self, text: Tensor) -> Tensor:
        """Of tokens [..., T]: float32 [..., D]."""
        there = (text != _PADDING).sum(-1, keepdim=True).clamp(min=1)
        mean = self.words(text).sum(-2) / there.sqrt()
        return F.normalize(mean + self.layer(mean), dim=-1)


class CrossEncoder(nn.Module):
    """A query and a passage to a score: each word of the query looks for its like among those of the passage
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
        """Of tokens [B, T] and [B, L, S]: float32 [B, L], the logit of each passage's answering the query."""
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


def student(seed: int = 0) -> DualEncoder:
    """540,864 parameters, nearly all of them embeddings of words."""
    torch.manual_seed(seed)
    return DualEncoder()


class _Teacher(nn.Module):
    """The cross-encoder with a collection at hand: queries and passages travel as their numbers."""

    def __init__(self, collection: Collection) -> None:
        super().__init__()
        self.reader = CrossEncoder()
        self.register_buffer("queries", tokens(collection.queries), persistent=False)
        self.register_buffer("passages", tokens(collection.passages), persistent=False)

    def forward(self, query: Tensor, passages: Tensor) -> dict[str, Tensor]:
        """``scores`` float32 [B, L] of numbers int64 [B] and [B, L]."""
        return {"scores": self.reader(self.queries[query], self.passages[passages])}


def teacher(seed: int = 0) -> nn.Module:
    """How sure the cross-encoder is, as a logit, that each passage of a list answers its query."""
    return _Teacher(generated(seed))
