"""The late ranker, which looks at a user and an item together, and the early one, of all items."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from examples.early_ranker.data import FEATURES, World

__all__ = ["EarlyRanker", "LateRanker", "early_ranker", "late_ranker"]


class LateRanker(nn.Module):
    """How likely a user is to click each of some items: an MLP of both and of their products.

    Args:
        items: float [N, FEATURES].
    """

    def __init__(self, items: Tensor, width: int = 128) -> None:
        super().__init__()
        self.register_buffer("items", items)
        self.layers = nn.Sequential(
            nn.Linear(4 * FEATURES, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def forward(self, user: Tensor, candidates: Tensor) -> Tensor:
        """Log odds of a click, float [B, K], for users [B, FEATURES] and the numbers of items [B, K].

        Raises:
            ValueError: there is no item of a number.
        """
        if candidates.numel() and not 0 <= int(candidates.min()) <= int(candidates.max()) < len(self.items):
            outside = candidates.max() if candidates.max() >= len(self.items) else candidates.min()
            raise ValueError(
                f"item {int(outside)} of {len(self.items)}: candidates are 0 to {len(self.items) - 1}"
            )
        items = self.items[candidates]
        user = user.unsqueeze(1).expand_as(items)
        both = torch.cat([user, items, user * items, (user - items).abs()], dim=-1)
        return self.layers(both).squeeze(-1)


class EarlyRanker(nn.Module):
    """Logits of all items for a user: the products of two small towers' outputs.

    Args:
        items: float [N, FEATURES].
    """

    def __init__(self, items: Tensor, width: int = 64, dimensions: int = 16) -> None:
        super().__init__()
        self.register_buffer("items", items)
        self.user = nn.Sequential(nn.Linear(FEATURES, width), nn.ReLU(), nn.Linear(width, dimensions))
        self.item = nn.Sequential(nn.Linear(FEATURES, width), nn.ReLU(), nn.Linear(width, dimensions + 1))

    def forward(self, user: Tensor) -> Tensor:
        """Float [B, N], for users [B, FEATURES]."""
        style, bias = self.item(self.items).split([self.item[-1].out_features - 1, 1], dim=-1)
        return self.user(user) @ style.T + bias[:, 0]


def late_ranker() -> LateRanker:
    return LateRanker(World().features).eval()


def early_ranker() -> EarlyRanker:
    return EarlyRanker(World().features)
