"""Batches and labels that are large enough for shared memory, and a model that spoils its inputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["SAMPLES", "Pictures", "check", "teacher"]

SAMPLES = 1 << 16
_SIDE = 64


def picture(index: int) -> Tensor:
    """int16 [3, 64, 64], different for each sample."""
    return (
        torch.arange(index, index + 3 * _SIDE * _SIDE, dtype=torch.int64)
        .remainder(30_011)
        .short()
        .reshape(3, _SIDE, _SIDE)
    )


class Pictures(Dataset[dict[str, Tensor]]):
    def __init__(self, samples: int = SAMPLES) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"id": torch.tensor(index), "picture": picture(index)}


def teacher():
    """Labels are made in place of the inputs: whoever lent them must not notice."""

    def label(picture: Tensor) -> Tensor:
        return picture.mul_(-1).sub_(1)

    return label


def check(batch: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> None:
    """Raise unless the batch is as it was made, and each sample has its own labels."""
    wanted = torch.stack([picture(int(index)) for index in batch["id"]])
    if not torch.equal(batch["picture"], wanted):
        raise AssertionError(f"the batch of samples {batch['id'].tolist()} was changed")
    if not torch.equal(labels["logits"], -wanted - 1):
        raise AssertionError(f"samples {batch['id'].tolist()} have wrong labels")
