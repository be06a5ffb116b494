"""What every run of this example shares: options, optimizers, the judge."""

from __future__ import annotations

import argparse

import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from edldist.optim import Clippy
from examples.stability.data import SHOCKS, events

__all__ = ["BATCH", "INPUTS", "auc", "optimizer_of", "options"]

BATCH, BASE_RATE = 128, 0.05
INPUTS = ("user", "item", "context", "watched")
TEST_SEED, TEST_EVENTS = 2000, 20_000
_HOPELESS = 0.5


def options(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--optimizer", choices=("adagrad", "clippy"), default="clippy")
    parser.add_argument("--rate", type=float, default=16.0, help=f"times the base learning rate, {BASE_RATE}")
    parser.add_argument("--clip", type=float, help="bound on the norm of the whole gradient")
    parser.add_argument("--shock", choices=SHOCKS, default="feature", help="what happens halfway")
    parser.add_argument("--guard", action="store_true", help="go back behind loss spikes")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def optimizer_of(model: nn.Module, args: argparse.Namespace) -> torch.optim.Optimizer:
    rate = args.rate * BASE_RATE
    if args.optimizer == "clippy":
        return Clippy(model.parameters(), lr=rate)
    return torch.optim.Adagrad(model.parameters(), lr=rate)


@torch.no_grad()
def auc(model: nn.Module, shock: str) -> float:
    """How often a clicked event of the test is ranked above another; 0.5 where nothing finite is left."""
    columns = events(TEST_SEED, TEST_EVENTS)
    if shock == "batches":
        columns["watched"][:] = 0
    logits = model(**{name: columns[name] for name in INPUTS}).double()
    scores = logits[:, 1] - logits[:, 0]
    if not bool(scores.isfinite().all()):
        return _HOPELESS
    return float(roc_auc_score(columns["click"].numpy(), scores.numpy()))
