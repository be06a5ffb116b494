"""What the plain student and the distilled one have in common: schedule and judge."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from examples.encoder.models import Student, features
from examples.encoder.text import Split

__all__ = ["BATCH", "NEIGHBOURS", "accuracy", "agreement", "answers", "neighbours", "optimization"]

BATCH = 64
NEIGHBOURS = 10


def optimization(
    model: nn.Module, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)


@torch.no_grad()
def answers(model: Student, texts: list[str]) -> dict[str, Tensor]:
    model.eval()
    outputs = model([features(text) for text in texts])
    model.train()
    return outputs


def accuracy(logits: Tensor, given: Split) -> float:
    """Percent of the test texts whose subject is found."""
    return 100 * float((logits.argmax(-1) == torch.from_numpy(given.answers)).float().mean())


def neighbours(embeddings: Tensor) -> Tensor:
    """The nearest others of each text by cosine, int64 [N, 10], of embeddings [N, D] of length 1."""
    return (embeddings @ embeddings.T).fill_diagonal_(-2.0).topk(NEIGHBOURS).indices


def agreement(nearest: Tensor, others: Tensor) -> float:
    """Percent of the nearest texts that are among the others' nearest, too: both int64 [N, 10]."""
    return 100 * float((nearest.unsqueeze(2) == others.unsqueeze(1)).any(2).float().mean())
