"""Residual networks (He et al., 2015), by hand: a wide teacher and a narrow student.

Both take ``image`` float32 [B, 3, S, S] of any size from 16 on and return logits float32 [B, 10].
"""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from examples.image.data import CLASSES

__all__ = ["ResNet", "parameters", "student", "teacher"]


class ResNet(nn.Module):
    """A stem, three stages of residual blocks, and a head; each stage halves the sides and doubles the width.

    Args:
        width: channels of the first stage.
        blocks: of each stage.
        size: of the pictures it is meant for: larger ones are made smaller by the stem, as ResNets for 224
            pixels do.
        groups: normalise within each picture, by so many groups of channels a stage, so that the gradient is
            that of the global batch however many ranks share it; None: over the batch.
    """

    def __init__(self, width: int, blocks: int, size: int, groups: int | None = None) -> None:
        super().__init__()
        large = size >= 64
        kernel, stride = (7, 4) if large else (3, 2)
        layers: list[nn.Module] = [
            nn.Conv2d(3, width, kernel, stride, kernel // 2, bias=False),
            _norm(width, groups),
            nn.ReLU(),
        ]
        inputs = width
        for stage in range(3):
            outputs = width << stage
            for block in range(blocks):
                layers.append(_Block(inputs, outputs, 2 if stage and not block else 1, groups))
                inputs = outputs
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(inputs, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(image))
        return logits


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, groups: int | None) -> None:
        super().__init__()
        self.way = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            _norm(outputs, groups),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            _norm(outputs, groups),
        )
        same = inputs == outputs and stride == 1
        self.past: nn.Module = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.way(x) + self.past(x))


def _norm(width: int, groups: int | None) -> nn.Module:
    return nn.BatchNorm2d(width) if groups is None else nn.GroupNorm(groups, width)


def teacher(size: int = 32, times: float = 1.0) -> nn.Module:
    """Three wide stages of two blocks; its weights come from the job's ``weights:``.

    Args:
        size: pixels of a side.
        times: how many times as slow as it is, played by sleeping after each pass: a worker on an older
            device.
    """
    model = ResNet(width=24, blocks=2, size=size)
    if times < 1:
        raise ValueError(f"times={times}: nobody is faster than this device: use 1 or more")
    if times > 1:
        begun = [0.0]

        def begin(*_: object) -> None:
            begun[0] = time.perf_counter()

        def end(_module: nn.Module, _inputs: object, logits: Tensor) -> None:
            if logits.is_cuda:
                torch.cuda.synchronize(logits.device)
            time.sleep((times - 1) * (time.perf_counter() - begun[0]))

        model.register_forward_pre_hook(begin)
        model.register_forward_hook(end)
    return model


def student(size: int = 32) -> nn.Module:
    """Three narrow stages of one block, freshly initialised from torch's random numbers."""
    return ResNet(width=8, blocks=1, size=size, groups=2)


def parameters(model: nn.Module) -> int:
    """How many numbers the model learns."""
    return sum(parameter.numel() for parameter in model.parameters())
