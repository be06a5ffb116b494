"""ResNets with bottleneck blocks (He et al., "Deep Residual Learning for Image Recognition", 2016).

Written out, so that the pair on a GPU needs no further package. Weights are random: only speed is
measured.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["ResNet", "resnet50", "resnet101", "tiny"]

EXPANSION = 4
MEAN, STD = 0.45, 0.225
"""Of ImageNet's pixels, one number for all three channels."""


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * EXPANSION
        self.branch = nn.Sequential(
            *_convolution(channels, width, 1),
            nn.ReLU(inplace=True),
            *_convolution(width, width, 3, stride),
            nn.ReLU(inplace=True),
            *_convolution(width, out, 1),
        )
        same = stride == 1 and channels == out
        self.shortcut = nn.Identity() if same else nn.Sequential(*_convolution(channels, out, 1, stride))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.relu(self.branch(x_BCHW) + self.shortcut(x_BCHW))


class ResNet(nn.Module):
    """From uint8 images [B, 3, H, W] to logits [B, classes].

    Args:
        layers: blocks of each of the four stages.
        width: channels of the first stage's narrow convolutions.
    """

    def __init__(self, layers: Sequence[int], width: int = 64, classes: int = 1000) -> None:
        super().__init__()
        stem = [*_convolution(3, width, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
        stages: list[nn.Module] = []
        channels = width
        for stage, blocks in enumerate(layers):
            narrow = width << stage
            for block in range(blocks):
                stages.append(_Bottleneck(channels, narrow, 2 if stage and block == 0 else 1))
                channels = narrow * EXPANSION
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
        self.net = nn.Sequential(*stem, *stages, *head)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net((x.float() / 255 - MEAN) / STD)
        return logits


def _convolution(channels: int, out: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out)]


def resnet50() -> ResNet:
    return ResNet((3, 4, 6, 3))


def resnet101() -> ResNet:
    return ResNet((3, 4, 23, 3))


def tiny() -> ResNet:
    """For a look at whether everything runs, in seconds, on any processor."""
    return ResNet((1, 1, 1, 1), width=8, classes=10)
