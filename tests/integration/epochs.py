"""A small data set for loops of several epochs, and the order in which its samples are due."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from edldist.sampling.sampler import ElasticSampler

__all__ = ["BATCH", "EPOCHS", "SAMPLES", "STEPS", "Noisy", "ids", "order", "sampled", "shuffled"]

SAMPLES = 24
BATCH = 4
EPOCHS = 3
STEPS = EPOCHS * SAMPLES // BATCH


class Noisy(Dataset):
    """Ids whose features are augmented with every global generator, in whatever process reads them."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        noise = [torch.randn(1).item(), random.gauss(0, 1), np.random.normal()]
        return {"id": torch.tensor(index), "x": torch.tensor(noise) + index / SAMPLES}


def sampled():
    return DataLoader(Noisy(), batch_sampler=ElasticSampler(SAMPLES, BATCH, seed=2))


def shuffled():
    return DataLoader(Noisy(), batch_size=BATCH, shuffle=True)


def ids(loader) -> list[list[int]]:
    return [batch["id"].tolist() for batch, _ in loader]


def order(epoch: int) -> list[list[int]]:
    sampler = ElasticSampler(SAMPLES, BATCH, seed=2)
    sampler.set_epoch(epoch)
    return list(sampler)
