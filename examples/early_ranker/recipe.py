"""What training, its judge and the measure of noise have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import get_args

import torch
from torch import Tensor, nn

from edldist.losses import candidate_gradient, draw_candidates
from edldist.losses.candidates import Credit
from examples.early_ranker.data import World

__all__ = ["BATCH", "RATES", "Ask", "noise", "options", "rewards", "value"]

BATCH = 64
RATES: dict[Credit, float] = {"inclusion": 3e-3, "set": 1e-3}
"""Chosen with seed 100."""

TEST_USERS, TEST_SEED = 2000, 77
NOISE_USERS, NOISE_DRAWS = 16, 256

Ask = Callable[[Tensor, Tensor], Tensor]
"""The late ranker's log odds, float [B, K], of users [B, F] and candidates [B, K]."""


def options(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--credit", choices=get_args(Credit), default="inclusion", help="of a reward")
    parser.add_argument("--candidates", type=int, default=50, help="what the late ranker gets of each user")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--noise",
        type=int,
        nargs="*",
        default=[],
        metavar="K",
        help="measure the noise at these sizes",
    )
    return parser


def rewards(odds_BK: Tensor, credit: Credit) -> Tensor:
    """What each candidate brought, [B, K]: the late ranker's chance of a click on the one that it shows.

    It shows the candidate that it likes best; nobody sees the others, which bring nothing. Where the whole
    set gets the reward, that is less the mean of the batch, or the gradient would be noise alone. Where the
    shown candidate gets it, a baseline is no help: it would push what users of few clicks were shown out of
    their sets, though it was the best that was in them.
    """
    best, shown = odds_BK.sigmoid().max(dim=-1, keepdim=True)
    baseline = best.mean() if credit == "set" else torch.zeros(())
    return torch.zeros_like(odds_BK).scatter_(-1, shown, best - baseline)


@torch.no_grad()
def value(model: nn.Module, ask: Ask, count: int) -> float:
    """Clicks in 100 visits of new users, whom the late ranker shows one of ``count`` drawn candidates.

    By the world's own chance of a click, so the late ranker's errors count against it.
    """
    chance = torch.Generator().manual_seed(TEST_SEED)
    world = World()
    clicks = 0.0
    for users in world.visitors(TEST_USERS, chance).split(250):
        candidates = draw_candidates(model(users), count, chance)
        shown = candidates.gather(1, ask(users, candidates).argmax(dim=1, keepdim=True))
        clicks += float(world.relevance(users).gather(1, shown).sum())
    return 100 * clicks / TEST_USERS


def noise(model: nn.Module, ask: Ask, count: int) -> dict[str, float]:
    """How much the gradient by one user's logits varies with the draw of the candidates.

    Returns:
        Its variance, summed over all logits, a mean over users. By credit, with the rewards of ``rewards``;
        and of the whole set without a baseline (``set_raw``), and less each user's own mean reward
        (``set_own``), which takes many draws for one user to know.
    """
    chance = torch.Generator().manual_seed(TEST_SEED)
    users = World.visitors(NOISE_USERS, chance)
    with torch.no_grad():
        logits = model(users)
    draws = [draw_candidates(logits, count, chance) for _ in range(NOISE_DRAWS)]
    odds = [ask(users, each) for each in draws]
    shown = [rewards(each, "inclusion") for each in odds]
    own = torch.stack([each.sum(-1, keepdim=True) for each in shown]).mean(0)
    ways: dict[str, tuple[Credit, list[Tensor]]] = {
        "inclusion": ("inclusion", shown),
        "set": ("set", [rewards(each, "set") for each in odds]),
        "set_raw": ("set", shown),
        "set_own": ("set", [each - own * (each != 0) for each in shown]),
    }
    return {name: _variance(logits, draws, brought, credit) for name, (credit, brought) in ways.items()}


def _variance(logits: Tensor, draws: list[Tensor], brought: list[Tensor], credit: Credit) -> float:
    total, squares = torch.zeros_like(logits), torch.zeros(())
    for candidates, each in zip(draws, brought, strict=True):
        leaf = logits.clone().requires_grad_()
        loss = candidate_gradient(leaf, candidates, each, credit=credit, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
        total += gradient
        squares += gradient.square().sum()
    count = len(draws)
    return float((squares - total.square().sum() / count) / (count - 1) / len(logits))
