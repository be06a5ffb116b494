"""The teacher and the student of the digits example.

Both take ``image`` float32 [B, 1, 16, 16] and return logits float32 [B, 10].
"""

from __future__ import annotations

from torch import Tensor, nn

CLASSES = 10


class Teacher(nn.Module):
    """Four convolutions with batch normalisation: 1,179,178 parameters."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_batch_normed(1, width, stride=2),
            *_batch_normed(width, 2 * width),
            *_batch_normed(2 * width, 2 * width, stride=2),
            *_batch_normed(2 * width, 4 * width),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
        )
        self.head = nn.Linear(16 * width, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(image))
        return logits


class Student(nn.Module):
    """Two convolutions: 6,138 parameters.

    Normalised within each image rather than over a batch, so the gradient is that of the global batch
    however many ranks share it.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_group_normed(1, width, groups=2),
            *_group_normed(width, 2 * width, groups=4),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Linear(8 * width, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(image))
        return logits


def teacher() -> nn.Module:
    """The teacher's architecture; its weights come from the job's ``weights:``."""
    return Teacher()


def student() -> nn.Module:
    """The student, freshly initialised from torch's random numbers."""
    return Student()


def parameters(model: nn.Module) -> int:
    """How many numbers the model learns."""
    return sum(parameter.numel() for parameter in model.parameters())


def _batch_normed(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def _group_normed(inputs: int, outputs: int, groups: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return [convolution, nn.GroupNorm(groups, outputs), nn.ReLU()]
