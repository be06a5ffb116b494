"""What the searched student, the fixed ones and the plain one have in common: budget, schedule, judge."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

import torch
import torch.nn.functional as F

from edldist.errors import ConfigError
from examples.cold_users.data import World
from examples.cold_users.models import Student
from examples.cold_users.structure import PLACES, chosen

__all__ = ["BATCH", "arguments", "error", "optimizer", "output_folder", "set_rates"]

BATCH = 32
RATE, GATE_RATE = 5e-3, 5e-2
_WARM_STEPS = 50


def arguments(description: str | None, given: list[str] | None) -> argparse.Namespace:
    """The options of all scripts.

    Raises:
        ConfigError: a number is out of range, or there is no such structure.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--structure",
        default="search",
        help="search, or those that are fixed: film (mul and add of each layer), all, or max1,mul2,...",
    )
    parser.add_argument("--steps", type=int, default=6000, help="of training, those of the search included")
    parser.add_argument("--search-steps", type=int, default=500, help="of them, before the best are kept")
    parser.add_argument("--keep", type=int, default=10, help="how many modulations are kept")
    args = parser.parse_args(given)
    if args.seed < 0:
        raise ConfigError(f"--seed {args.seed}: use 0 or more")
    if not 1 <= args.search_steps < args.steps:
        raise ConfigError(
            f"--search-steps {args.search_steps} of --steps {args.steps}: search for 1 step at least, and "
            "leave some to train with what was found"
        )
    if not 1 <= args.keep <= len(PLACES):
        raise ConfigError(f"--keep {args.keep}: keep from 1 to {len(PLACES)} modulations")
    if args.structure != "search":
        chosen(args.structure)
    return args


def optimizer(model: Student) -> torch.optim.Optimizer:
    """Two groups: the weights of the gates, and all others."""
    others = [value for name, value in model.named_parameters() if name != "weights"]
    return torch.optim.Adam([{"params": [model.weights], "lr": GATE_RATE}, {"params": others}], lr=RATE)


def set_rates(optimizer: torch.optim.Optimizer, step: int, args: argparse.Namespace) -> None:
    """Warm up and fall to 0 in half a cosine: once while searching, and once from there to the end.

    Args:
        step: how many were taken.
    """
    begun, end = 0, args.steps
    if args.structure == "search":
        begun, end = (0, args.search_steps) if step < args.search_steps else (args.search_steps, args.steps)
    done = (step - begun) / (end - begun)
    optimizer.param_groups[1]["lr"] = (
        RATE * min(1.0, (step - begun + 1) / _WARM_STEPS) * (1 + math.cos(math.pi * done)) / 2
    )


@torch.no_grad()
def error(model: Student, world: World) -> float:
    """Mean squared error of what it tells of cold users."""
    cold = world.cold()
    return F.mse_loss(model(cold["support"], cold["ratings"], cold["query"]), cold["truth"]).item()


def output_folder() -> Path:
    return Path(os.environ.get("EDLDIST_OUTPUT", "out/cold_users"))
