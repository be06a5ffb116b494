"""The teacher and the student: how likely each event is a click.

Both take ``user`` and ``item`` int64 [B], ``context`` float32 [B, 8] and ``watched`` float32 [B, 1], and
return logits float32 [B, 2]: of no click and of one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from examples.stability.data import CONTEXT, ITEMS, USERS

__all__ = ["Ranker", "student", "teacher"]

_EMBEDDED = 4


class Ranker(nn.Module):
    """Embeddings of user and item, and the numbers beside them, through three hidden layers.

    Args:
        width: of the hidden layers.
        tames: whether features are brought into a range in which nothing can happen, as a teacher's that was
            trained with care: ``watched`` through a logarithm, all of them cut off.
    """

    def __init__(self, width: int, tames: bool) -> None:
        super().__init__()
        self.tames = tames
        self.user, self.item = nn.Embedding(USERS, _EMBEDDED), nn.Embedding(ITEMS, _EMBEDDED)
        self.layers = nn.Sequential(
            *(nn.Linear(2 * _EMBEDDED + CONTEXT + 1, width), nn.ReLU()),
            *(nn.Linear(width, width), nn.ReLU()),
            *(nn.Linear(width, width), nn.ReLU()),
            nn.Linear(width, 2),
        )

    def forward(self, user: Tensor, item: Tensor, context: Tensor, watched: Tensor) -> Tensor:
        if self.tames:
            context, watched = context.clamp(-5, 5), watched.log1p().clamp(max=8)
        logits: Tensor = self.layers(torch.cat([self.user(user), self.item(item), context, watched], dim=1))
        return logits


def teacher() -> nn.Module:
    """The large one; its weights come from the job's ``weights:``."""
    return Ranker(width=128, tames=True)


def student() -> nn.Module:
    """The small one, which gets features as they are logged; freshly initialised."""
    return Ranker(width=16, tames=False)
