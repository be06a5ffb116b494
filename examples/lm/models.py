"""Small language models of bytes. They take ``tokens`` int64 [B, S]; what is said at a token is of the
next."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.lm.text import TOKENS, WINDOW

__all__ = ["LanguageModel", "student", "teacher"]

_SEEN = 4  # tokens that the convolution sees


class LanguageModel(nn.Module):
    """A transformer over embeddings that a causal convolution has mixed.

    Without the convolution a model of this size spends its first hundreds of steps on a plateau, learning to
    look at the token before: whatever shortens that would pass for a gain.
    """

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, width)
        self.position = nn.Parameter(0.02 * torch.randn(WINDOW, width))
        self.mix = nn.Conv1d(width, width, _SEEN, groups=width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, TOKENS)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """``logits`` float32 [B, S, 256], and ``hidden`` [B, S, width], from which the head makes them."""
        x = self.embedding(tokens)
        x = x + self.mix(F.pad(x.mT, (_SEEN - 1, 0))).mT + self.position[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        hidden = self.norm(x)
        return {"logits": self.head(hidden), "hidden": hidden}


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.attention = nn.ModuleList([nn.Linear(width, 3 * width), nn.Linear(width, width)])
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        into, out = self.attention
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in into(self.before[0](x)).chunk(3, dim=-1)
        )
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + out(seen.transpose(1, 2).flatten(2))
        return x + self.feed(self.before[1](x))


def teacher() -> LanguageModel:
    """Three blocks; its weights come from the job's ``weights:``."""
    return LanguageModel(width=96, layers=3, heads=4)


def student() -> LanguageModel:
    """Two narrower blocks, freshly initialised from torch's random numbers."""
    return LanguageModel(width=64, layers=2, heads=4)
