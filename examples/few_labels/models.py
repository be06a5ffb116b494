"""The teacher and the student. Both take ``pixels`` float32 [B, 64] and return logits float32 [B, 10]."""

from __future__ import annotations

from torch import Tensor, nn


class Perceptron(nn.Module):
    """One hidden layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.layers(pixels)
        return logits


def teacher() -> nn.Module:
    """19,210 parameters; its weights come from the job's ``weights:``."""
    return Perceptron(256)


def student() -> nn.Module:
    """1,210 parameters."""
    return Perceptron(16)
