"""Scikit-learn's handwritten digits: 1,198 to train on, of which few have labels, and 599 to test with."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import Dataset, Subset

LABELS_PER_CLASS = 5


class Digits(Dataset[dict[str, Tensor]]):
    """``pixels`` float32 [64] in 0..1, and ``label`` and ``index`` int64 []."""

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels = pixels
        self.labels = labels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixels": self.pixels[index], "label": self.labels[index], "index": torch.tensor(index)}


def splits() -> tuple[Digits, Subset[dict[str, Tensor]], Digits]:
    """All images to train on; the 50 of them with a label, repeated to as many; and those to test with."""
    pixels, labels = load_digits(return_X_y=True)
    parts = train_test_split(pixels / 16, labels, test_size=1 / 3, stratify=labels, random_state=0)
    x, test_x, y, test_y = (torch.from_numpy(part) for part in parts)
    train, test = Digits(x.float(), y), Digits(test_x.float(), test_y)
    few = torch.cat([(y == digit).nonzero()[:LABELS_PER_CLASS, 0] for digit in range(10)]).tolist()
    return train, Subset(train, (few * (len(train) // len(few) + 1))[: len(train)]), test
