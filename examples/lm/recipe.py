"""What the teacher, the plain student and the distilled one have in common: budget, schedule, judge."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BATCH", "bits_per_byte", "optimization", "options", "output_folder", "text_loss"]

BATCH = 32


def options(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--text", choices=("all", "scarce"), default="scarce", help="what the student may read"
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def optimization(
    model: nn.Module, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.05)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.1)


def text_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """Cross-entropy of each token with what was said before it, in nats: logits [B, S, V], tokens [B, S +
    1]."""
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


@torch.no_grad()
def bits_per_byte(model: nn.Module, windows: Tensor) -> float:
    """What the model needs for text that it has not read, int64 [N, S + 1]."""
    model.eval()
    nats = [
        text_loss(model(part[:, :-1])["logits"], part).item() * len(part) for part in windows.split(2 * BATCH)
    ]
    model.train()
    return sum(nats) / len(windows) / math.log(2)


def output_folder() -> Path:
    return Path(os.environ.get("EDLDIST_OUTPUT", "out/lm"))
