"""What a student and a teacher of this example can do, whatever their texts are read with.

A text is a row of what its kind makes of it: tokens, int64 [T], or what frozen layers say of each, [T, W].
Shapes below are those of tokens.
"""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["CrossEncoder", "DualEncoder"]


class DualEncoder(nn.Module):
    """Texts to vectors of length 1. No query sees a passage."""

    def forward(self, queries: Tensor, passages: Tensor) -> tuple[Tensor, Tensor]:
        """Of texts [B, T] and [..., S]: float32 [B, D] and [..., D]."""
        return self.embed(queries), self.embed(passages)

    def embed(self, text: Tensor) -> Tensor:
        """Of texts [..., T]: float32 [..., D]."""
        raise NotImplementedError


class CrossEncoder(nn.Module):
    """A query and a passage to a score."""

    def forward(self, queries: Tensor, passages: Tensor) -> Tensor:
        """Of texts [B, T] and [B, L, S]: float32 [B, L], the logit of each passage's answering the query."""
        raise NotImplementedError

    def begin_with(self, model: DualEncoder) -> None:
        """Take over what a student of the same kind knows of texts by themselves."""
        raise NotImplementedError
