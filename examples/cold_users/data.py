"""Generated ratings: users make the same of items, but for a floor, a ceiling, a scale and a shift.

Nothing here was collected from anybody. Items have features, and of these everybody makes the same few
*aspects* (directions among the features). Users differ in what they let through of an aspect: nothing
disappoints them below their floor, nothing delights them beyond their ceiling, and what is left counts by
their scale::

    rating = sum_k weight_k * scale_uk * min(max(aspect_k(item), floor_uk), ceiling_uk) + shift_u + noise

Floors, ceilings, scales and the shift of a user are functions of ``TASTES`` numbers of theirs. So max, min,
mul and add express these users *by construction*; data of another kind may need other modulations.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["COLD", "FEATURES", "ITEMS", "MATURE", "QUERY", "RATED", "SUPPORT", "Draws", "World"]

MATURE, COLD = 1500, 500
"""Users whom the teacher knows, and behind them new ones, by whom students are judged."""
ITEMS, FEATURES = 500, 8
RATED = 120
"""How many items each mature user has rated."""
SUPPORT, QUERY = 10, 20
"""Ratings of a user that a student sees, and items of which it has to tell how they will be rated."""
ASPECTS, TASTES, NOISE = 6, 2, 0.1
_SEED = 2306


@dataclass(frozen=True)
class World:
    """What users make of items.

    Attributes:
        features: float32 [ITEMS, FEATURES].
        ratings: float32 [MATURE + COLD, ITEMS]: what each would say of each; who may see it is another
            matter.
        rated: int64 [MATURE, RATED]: the items that each mature user has rated.
    """

    features: Tensor
    ratings: Tensor
    rated: Tensor

    @classmethod
    @functools.cache
    def made(cls) -> World:
        """The same one each time."""
        chance = torch.Generator().manual_seed(_SEED)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=chance)

        features = normal(ITEMS, FEATURES)
        aspects = features @ torch.linalg.qr(normal(FEATURES, FEATURES)).Q[:, :ASPECTS]
        tastes = (2 * torch.rand(MATURE + COLD, TASTES, generator=chance) - 1) / TASTES**0.5
        middle = tastes @ normal(TASTES, ASPECTS)
        half = 0.2 + 0.8 * torch.sigmoid(2 * tastes @ normal(TASTES, ASPECTS))
        scale = torch.exp(0.5 * tastes @ normal(TASTES, ASPECTS))
        shift = tastes @ normal(TASTES, 1)
        weights = torch.tensor([1.0, -1.0]).repeat(ASPECTS // 2)
        floor, ceiling = (middle - half)[:, None], (middle + half)[:, None]
        heard = aspects[None].maximum(floor).minimum(ceiling) * scale[:, None]
        ratings = heard @ weights + shift + NOISE * normal(MATURE + COLD, ITEMS)
        rated = torch.rand(MATURE, ITEMS, generator=chance).argsort(dim=1)[:, :RATED]
        return cls(features, ratings, rated)

    def cold(self) -> dict[str, Tensor]:
        """The new users as one batch, as ``Draws`` has them, with a ``truth`` [COLD, QUERY]: their ratings of
        the items that are asked for."""
        chance = torch.Generator().manual_seed(_SEED + 1)
        users = torch.arange(MATURE, MATURE + COLD)
        items = torch.rand(COLD, ITEMS, generator=chance).argsort(dim=1)[:, : SUPPORT + QUERY]
        return self.episode(users, items)

    def episode(self, user: Tensor, items: Tensor) -> dict[str, Tensor]:
        """What users say of their first ``SUPPORT`` items, and which others are asked for.

        Args:
            user: int64 [...].
            items: int64 [..., SUPPORT + QUERY].
        """
        seen, asked = items[..., :SUPPORT], items[..., SUPPORT:]
        return {
            "user": user,
            "support": self.features[seen],
            "ratings": self.ratings[user[..., None], seen],
            "asked": asked,
            "query": self.features[asked],
            "truth": self.ratings[user[..., None], asked],
        }


class Draws(Dataset[dict[str, Tensor]]):
    """Mature users, each with a few ratings as if there were no more: the same draw is the same episode.

    ``user`` int64 []; ``support`` float32 [SUPPORT, FEATURES] and ``ratings`` float32 [SUPPORT]: items that
    the user has rated, and how; ``asked`` int64 [QUERY] and ``query`` float32 [QUERY, FEATURES]: items to be
    told of.

    Args:
        draws: how many.
        rated: ask for items that the user has rated, and give ``truth`` float32 [QUERY]. Otherwise any items
            are asked for, and nobody but a teacher knows.
    """

    def __init__(self, world: World, draws: int, seed: int, rated: bool = False) -> None:
        self._world, self._draws, self._seed, self._rated = world, draws, seed, rated

    def __len__(self) -> int:
        return self._draws

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        chance = random.Random(f"{self._seed} {number}")
        user = chance.randrange(MATURE)
        rated = self._world.rated[user].tolist()
        if self._rated:
            items = chance.sample(rated, SUPPORT + QUERY)
        else:
            items = chance.sample(rated, SUPPORT) + chance.sample(range(ITEMS), QUERY)
        episode = self._world.episode(torch.tensor(user), torch.tensor(items))
        if not self._rated:
            del episode["truth"]
        return episode
