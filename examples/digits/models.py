"""The teacher and the student of the digits example.

Both take ``image`` float32 [B, 1, 16, 16] and return logits float32 [B, 10].
"""

from __future__ import annotations

from torch import Tensor, nn

CLASSES = 10


class Teacher(nn.Module):
    """Four convolutions with batch normalisation: 135,018 parameters."""

    def __init__(self, width: int = 32) -> None:
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
    """Two convolutions: 1,898 parameters.

    Without normalisation over a batch, the gradient is that of the global batch however many ranks
    share it.
    """

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(2),
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
