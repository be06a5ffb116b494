"""Generated impressions of items, and whether somebody clicked.

An impression has eight context fields (who looks, where, when) of six values each. Ten pairs of fields can
matter to a click, but to which items is a matter of their *kind*: for each of twelve kinds three pairs matter
much, and the other seven a fifth of that. Each item weighs its pairs a little differently from others of its
kind, and some items are clicked more than others::

    logit of a click = bias of the item + sum over the ten pairs (a, b) of
                       weight of the item and pair * taste[a, b][value of a, value of b]

Four categories have three kinds each. ``Market(seed)`` is one such world; the same seed is the same world.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["BRANDS", "CATEGORIES", "FIELDS", "KINDS", "VALUES", "Impressions", "Market", "market"]

FIELDS, VALUES = 8, 6
CATEGORIES, KINDS = 4, 12
BRANDS = 10  # of items; they say nothing
_PAIRS, _PAIRS_OF_A_KIND = 10, 3
_LITTLE = 0.2  # what other pairs matter
_TASTE, _WEIGHTS, _BIAS = 1.2, (0.6, 1.4), (-0.5, 0.8)


@dataclass(frozen=True)
class Impressions:
    """Some impressions.

    Attributes:
        item: int64 [N], the item's number.
        context: int64 [N, FIELDS].
        click: float32 [N], 0 or 1.
    """

    item: Tensor
    context: Tensor
    click: Tensor


class Market:
    """Items, mature ones and then cold ones, and who clicks on them.

    Attributes:
        mature, cold: how many items of either sort there are; they are numbered in this order.
        kind: int64 [items]; three kinds after another make a category.
        brand: int64 [items].
    """

    def __init__(self, seed: int, mature: int = 160, cold: int = 80) -> None:
        chance = np.random.default_rng(seed)
        pairs = np.array([(a, b) for a in range(FIELDS) for b in range(a + 1, FIELDS)])
        self._pairs = pairs[chance.permutation(len(pairs))[:_PAIRS]]
        self._taste = chance.normal(0, _TASTE, (_PAIRS, VALUES, VALUES))
        self._taste -= self._taste.mean(1, keepdims=True)  # no field matters by itself
        self._taste -= self._taste.mean(2, keepdims=True)
        matters = np.full((KINDS, _PAIRS), _LITTLE)
        for kind in range(KINDS):
            matters[kind, chance.permutation(_PAIRS)[:_PAIRS_OF_A_KIND]] = 1.0
        self.mature, self.cold = mature, cold
        items = mature + cold
        kinds = np.arange(items) % KINDS
        self._weight = matters[kinds] * chance.uniform(*_WEIGHTS, (items, _PAIRS))
        self._bias = chance.normal(*_BIAS, items)
        self.kind = torch.from_numpy(kinds)
        self.brand = torch.from_numpy(chance.integers(0, BRANDS, items))

    @property
    def category(self) -> Tensor:
        """int64 [items]."""
        return self.kind // (KINDS // CATEGORIES)

    def attributes(self, item: Tensor) -> Tensor:
        """Kind and brand of items: int64 [..., 2].

        Raises:
            ValueError: there is no such item.
        """
        count = self.mature + self.cold
        if len(wrong := item[(item < 0) | (item >= count)]):
            raise ValueError(f"there is no item {int(wrong[0])}: items are 0 to {count - 1}")
        return torch.stack([self.kind[item], self.brand[item]], dim=-1)

    def contexts(self, count: int, seed: int) -> Tensor:
        """Context fields of impressions that nobody has answered: int64 [count, FIELDS]."""
        chance = np.random.default_rng([seed, 1])
        return torch.from_numpy(chance.integers(0, VALUES, (count, FIELDS)))

    def impressions(self, item: Tensor, seed: int) -> Impressions:
        """One impression for each entry of ``item``, int64 [N], in contexts and with clicks by that seed."""
        context = self.contexts(len(item), seed)
        chance = np.random.default_rng([seed, 2])
        clicked = chance.random(len(item)) < 1 / (1 + np.exp(-self._logits(item.numpy(), context.numpy())))
        return Impressions(item, context, torch.from_numpy(clicked.astype(np.float32)))

    def _logits(self, item: np.ndarray, context: np.ndarray) -> np.ndarray:
        total = self._bias[item]
        for number, (a, b) in enumerate(self._pairs):
            total = total + self._weight[item, number] * self._taste[number, context[:, a], context[:, b]]
        return total


def market() -> Market:
    """The one of this example: its teachers know it, so it does not depend on a student's seed."""
    return Market(seed=1)
