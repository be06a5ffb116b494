"""A small convolutional net on images of 3x32x32, and steps that train it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

import edldist

__all__ = ["CLASSES", "Labelled", "trainer"]

CLASSES = 10
Labelled = tuple[Tensor, Mapping[str, Tensor]]


def trainer(
    hard: Tensor, wrap: Callable[[nn.Module], nn.Module] = lambda model: model
) -> Callable[[Labelled], None]:
    """Steps with the labels of a teacher.

    Args:
        hard: the true classes of a batch, int64 [n].
        wrap: what goes around the net, as ``DistributedDataParallel``.
    """
    torch.manual_seed(0)
    model = wrap(
        nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, CLASSES),
        )
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def train(item: Labelled) -> None:
        batch, labels = item
        loss = edldist.losses.kd(model(batch), labels["logits"], hard, temperature=4.0, alpha=0.9)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return train
