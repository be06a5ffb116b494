"""What both students have in common: the market, samples, schedule, adaptation to cold items, judge."""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from examples.cold_items.data import CATEGORIES, Impressions, Market
from examples.cold_items.models import GRAPHS, GraphNetwork
from examples.common.rows import Rows

__all__ = ["BATCH", "TEACHERS", "auc", "cold_auc", "optimization", "options", "samples", "warm_auc"]

BATCH = 256
TEACHERS = [f"category-{number}" for number in range(CATEGORIES)]
SUPPORT, QUERY = 20, 500  # impressions of a cold item: to adapt to, and to judge by
ADAPT_STEPS, ADAPT_RATE = 10, 0.005


def options(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--graph", choices=GRAPHS, default="own")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument(
        "--seed", type=int, default=0, help="of first weights, samples and cold items' clicks"
    )
    return parser


def samples(given: Market, steps: int, seed: int) -> Rows:
    """Impressions of mature items that nobody has answered.

    ``item`` int64, ``context`` int64 [8], ``attributes`` int64 [2], ``category`` int64: its teacher's place.
    """
    chance = torch.Generator().manual_seed(seed)
    item = torch.randint(given.mature, (steps * BATCH,), generator=chance)
    context = given.contexts(len(item), seed)
    return Rows(
        {
            "item": item,
            "context": context,
            "attributes": given.attributes(item),
            "category": given.category[item],
        }
    )


def optimization(model: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, LRScheduler]:
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    return optimizer, OneCycleLR(optimizer, 5e-3, total_steps=steps)


def auc(scores: Tensor, clicks: Tensor) -> float:
    """The area under the ROC curve of scores and clicks [N].

    That is the share of pairs of a clicked and another impression that stand in the right order, ties half.

    Raises:
        ValueError: all were clicked, or none.
    """
    clicked = clicks.bool()
    positive, count = int(clicked.sum()), len(clicks)
    if positive in (0, count):
        raise ValueError(f"{positive} of {count} impressions were clicked: there is no order to judge")
    values, place, ties = scores.unique(return_inverse=True, return_counts=True)
    below = ties.cumsum(0) - ties
    ranks = below + (ties + 1) / 2  # the mean rank of equal scores
    total = float(ranks.double()[place][clicked].sum())
    return (total - positive * (positive + 1) / 2) / (positive * (count - positive))


@torch.no_grad()
def warm_auc(model: GraphNetwork, given: Market, seed: int) -> float:
    """On impressions of mature items that nobody has seen."""
    items = torch.arange(given.mature)
    test = given.impressions(items.repeat_interleave(QUERY), seed=3_000_000 + seed)
    logits = model(test.item, test.context, given.attributes(test.item))
    return auc(logits, test.click)


def cold_auc(model: GraphNetwork, given: Market, seed: int) -> dict[str, float]:
    """On impressions of cold items: ``before`` and ``after`` the model has adapted to 20 others of each."""
    items = given.mature + torch.arange(given.cold)
    attributes = given.attributes(items)
    support = given.impressions(items.repeat_interleave(SUPPORT), seed=4_000_000 + seed)
    query = given.impressions(items.repeat_interleave(QUERY), seed=5_000_000 + seed)

    @torch.no_grad()
    def judged(item: Tensor, graphs: Tensor) -> float:
        found = _scores(model, query.context, attributes, item, graphs)
        return auc(found.flatten(), query.click)

    return {
        "before": judged(*unadapted(model, attributes)),
        "after": judged(*adapted(model, attributes, support)),
    }


def unadapted(model: GraphNetwork, attributes: Tensor) -> tuple[Tensor, Tensor]:
    """What a model has for new items [N, 2]: embeddings [N, WIDTH], the mean of known ones, and graphs."""
    item = model.item.weight.mean(0).expand(len(attributes), -1)
    return item.detach().clone(), model.graphs(attributes).detach().clone()


def adapted(model: GraphNetwork, attributes: Tensor, support: Impressions) -> tuple[Tensor, Tensor]:
    """The same after some steps on the clicks of each item; nothing else of the model moves.

    Args:
        attributes: int64 [N, 2], of the items.
        support: as many impressions of each item, item by item.
    """
    item, graphs = unadapted(model, attributes)
    optimizer = torch.optim.Adam([item.requires_grad_(), graphs.requires_grad_()], lr=ADAPT_RATE)
    for _ in range(ADAPT_STEPS):
        logits = _scores(model, support.context, attributes, item, graphs)
        losses = F.binary_cross_entropy_with_logits(
            logits, support.click.view(logits.shape), reduction="none"
        )
        # Each item's own mean: no item's steps depend on another's clicks.
        item.grad, graphs.grad = torch.autograd.grad(losses.mean(1).sum(), [item, graphs])
        optimizer.step()
    return item.detach(), graphs.detach()


def _scores(model: GraphNetwork, context: Tensor, attributes: Tensor, item: Tensor, graphs: Tensor) -> Tensor:
    """Logits [N, M] of M impressions of each of N items, whose contexts [N * M, FIELDS] come item by item."""
    each = len(context) // len(item)
    found = [
        model.score(
            part, attributes[at : at + 1].expand(each, -1), item[at].expand(each, -1), graphs[at : at + 1]
        )
        for at, part in enumerate(context.split(each))
    ]
    return torch.stack(found)
