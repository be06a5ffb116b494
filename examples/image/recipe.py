"""What all students of this example share: options, optimizer, loss, judge."""

from __future__ import annotations

import argparse
import os

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from examples.image.data import Pictures

__all__ = ["BATCH", "TEMPERATURE", "accuracy", "device_of", "optimization", "options", "true_loss"]

BATCH, RATE, TEMPERATURE = 64, 1e-2, 2.0
_AT_ONCE = 256


def options(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--size", type=int, default=32, help="pixels of a side: 32 on a CPU, 224 on a GPU")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def device_of() -> torch.device:
    """This rank's GPU, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def optimization(model: nn.Module, steps: int) -> tuple[AdamW, OneCycleLR]:
    optimizer = AdamW(model.parameters(), lr=RATE, weight_decay=1e-2)
    return optimizer, OneCycleLR(optimizer, RATE, total_steps=steps)


def true_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Of the student that learns from true labels, and of the teacher."""
    return cross_entropy(logits, labels, label_smoothing=0.05)


@torch.no_grad()
def accuracy(model: nn.Module, pictures: Pictures) -> float:
    """Percent of the pictures, each composed as in epoch 0, whose digit is found."""
    device = next(model.parameters()).device
    model.eval()
    right = 0
    for at in range(0, len(pictures), _AT_ONCE):
        batch = pictures.__getitems__(range(at, min(at + _AT_ONCE, len(pictures))))
        right += int((model(batch["image"].to(device)).argmax(1).cpu() == batch["label"]).sum())
    model.train()
    return 100 * right / len(pictures)
