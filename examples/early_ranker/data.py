"""Generated visits to a shop, every number of them: users, items, what was shown and what was clicked.

A user and an item are 16 numbers each, drawn from N(0, 1). What a user makes of an item is

    relevance(u, v) = sigmoid(SCALE * taste(u) . style(v) + QUALITY * quality(v) - |u_0 - v_0| - RARE)

where taste and style are random functions ``tanh(x W)`` to 8 dimensions, and quality is a random direction.
It is the chance of a click. Nobody but the judge of the example knows it: teachers and students see numbers
of users and items, and the clicks of a log of visits, in each of which a user was shown one item, half of
them any item and half of them one of the better liked.

The world (``WORLD_SEED``) is one; seeds of runs choose other visitors of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["FEATURES", "ITEMS", "WORLD_SEED", "Log", "World"]

FEATURES, ITEMS = 16, 1000
WORLD_SEED = 20260527
_TASTES = 8
SCALE, QUALITY, RARE = 1.2, 0.8, 4.5


@dataclass(frozen=True)
class Log:
    """Visits: ``user`` float [V, FEATURES], the ``item`` that was shown, int64 [V], ``clicked`` float [V]."""

    user: Tensor
    item: Tensor
    clicked: Tensor


class World:
    """Items, and who likes them.

    Args:
        items: how many there are.
        seed: of the items and of the tastes.

    Attributes:
        features: float [items, FEATURES].
    """

    def __init__(self, items: int = ITEMS, seed: int = WORLD_SEED) -> None:
        chance = torch.Generator().manual_seed(seed)
        self.features = torch.randn(items, FEATURES, generator=chance)
        self._taste = torch.randn(FEATURES, _TASTES, generator=chance) / FEATURES**0.5
        self._style = torch.tanh(self.features @ torch.randn(FEATURES, _TASTES, generator=chance) / 2)
        self._quality = self.features @ torch.randn(FEATURES, generator=chance) / FEATURES**0.5

    @staticmethod
    def visitors(count: int, chance: torch.Generator | None = None) -> Tensor:
        """Users, float [count, FEATURES]."""
        return torch.randn(count, FEATURES, generator=chance)

    def relevance(self, users: Tensor) -> Tensor:
        """The chance that each user clicks each item, float [U, items]: for the log, and for the judge."""
        affinity = SCALE * torch.tanh(2 * users @ self._taste) @ self._style.T
        gap = (users[:, :1] - self.features[:, 0]).abs()
        return torch.sigmoid(affinity + QUALITY * self._quality - gap - RARE)

    def log(self, visits: int, seed: int) -> Log:
        """What was shown and clicked before there was any ranker."""
        chance = torch.Generator().manual_seed(seed)
        users = self.visitors(visits, chance)
        anything = torch.randint(len(self.features), (visits,), generator=chance)
        liked = torch.multinomial(self._quality.softmax(0), visits, replacement=True, generator=chance)
        item = torch.where(torch.rand(visits, generator=chance) < 0.5, anything, liked)
        clicks = []
        for part in torch.arange(visits).split(4096):
            relevance = self.relevance(users[part]).gather(1, item[part, None])[:, 0]
            clicks.append((torch.rand(len(part), generator=chance) < relevance).float())
        return Log(users, item, torch.cat(clicks))
