"""What both students have in common: budget, rates, how new users are judged."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from edldist.errors import ConfigError
from examples.streaming_users.data import Calendar, users
from examples.streaming_users.models import Student
from examples.streaming_users.nights import BUILD

__all__ = [
    "BATCH",
    "arguments",
    "OFFLINE_STEPS",
    "auc",
    "calendar",
    "judge",
    "judged",
    "optimizer",
    "output_folder",
    "set_rates",
]

BATCH = 32
OFFLINE_STEPS, DAY_STEPS, DAYS = 600, 200, 3
RATE, ONLINE_RATE = 4e-3, 2e-2
JUDGES, _JUDGES_SEED = 1000, 1_000_077
_WARM_STEPS = 50


def arguments(description: str | None, given: list[str] | None) -> argparse.Namespace:
    """The options of both scripts.

    Raises:
        ConfigError: a number is out of range.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--steps",
        type=int,
        default=OFFLINE_STEPS + DAYS * DAY_STEPS,
        help=f"of {BATCH} arrivals each; the stream itself has no end",
    )
    parser.add_argument(
        "--offline-steps", type=int, default=OFFLINE_STEPS, help="of day 0, before the stream"
    )
    parser.add_argument("--day-steps", type=int, default=DAY_STEPS, help="of each day of the stream")
    parser.add_argument("--users", type=int, help="break the stream off after so many arrivals")
    parser.add_argument("--adapt-steps", type=int, default=3, help="of gradient descent for each new user")
    parser.add_argument("--build", type=Path, default=BUILD, help="where the teachers of the nights lie")
    args = parser.parse_args(given)
    least_of = {"seed": 0, "steps": 1, "offline_steps": 1, "day_steps": 1, "adapt_steps": 1, "users": 0}
    for name, least in least_of.items():
        value = getattr(args, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: use {least} or more")
    return args


def calendar(args: argparse.Namespace) -> Calendar:
    return Calendar(args.offline_steps * BATCH, args.day_steps * BATCH)


def optimizer(model: Student) -> torch.optim.Optimizer:
    """Two groups: the fixed part, and the adaptive one."""
    parts = [{"params": list(model.fixed.parameters())}, {"params": [model.adaptive]}]
    return torch.optim.Adam(parts, lr=RATE)


def set_rates(optimizer: torch.optim.Optimizer, step: int, offline_steps: int) -> None:
    """Before the stream: warm up, and fall to 0 in half a cosine. From then on the fixed part is fixed.

    Args:
        step: how many were taken.
    """
    fixed, adaptive = optimizer.param_groups
    if step < offline_steps:
        rate = RATE * min(1.0, (step + 1) / _WARM_STEPS) * (1 + math.cos(math.pi * step / offline_steps)) / 2
        fixed["lr"] = adaptive["lr"] = rate
    else:
        fixed["lr"], adaptive["lr"] = 0.0, ONLINE_RATE


def judged(day: int) -> dict[str, Tensor]:
    """New users of a day, whom no student and no teacher has learnt from."""
    return users(_JUDGES_SEED, range(1_000_000 * day, 1_000_000 * day + JUDGES), day)


@torch.no_grad()
def judge(model: Student, day: int = DAYS) -> float:
    """What the student's ``auc`` is on ``judged`` users."""
    new = judged(day)
    return auc(model(new["items"], new["clicks"], new["query"]), new["query_clicks"])


def auc(logits: Tensor, clicks: Tensor) -> float:
    """Area under the ROC curve of all clicks of all users together, in points of 100."""
    return 100 * float(roc_auc_score(clicks.flatten().numpy(), logits.detach().flatten().numpy()))


def output_folder() -> Path:
    return Path(os.environ.get("EDLDIST_OUTPUT", "out/streaming_users"))
