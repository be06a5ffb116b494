"""Handwritten digits in front of photographs: small, real, and as large as wanted.

Scikit-learn brings 1,797 digits of 8x8 grey pixels and two colour photographs of 427x640. A picture here is a
digit, turned, scaled and moved, that brightens or darkens a crop of one of the photographs. Digits and
photographs are real; that they are together is composed. A third of the digits is kept for the test.

Every draw is a number, as in ``examples/digits/data.py``: draw ``d`` of n digits is digit ``d % n`` as epoch
``d // n`` sees it, a function of (seed, epoch, digit) and of nothing else, in whatever batch, process or
restart it is made.

Shapes: B pictures of S pixels a side; ``image`` float32 [B, 3, S, S], about -1..1; ``label`` and ``draw``
    int64 [B].
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.datasets import load_digits, load_sample_images
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn.functional import grid_sample
from torch.utils.data import DataLoader, Dataset

import edldist
from examples.digits.data import DrawSampler, uniform

__all__ = ["CLASSES", "Pictures", "batches", "splits"]

CLASSES = 10
_SPLIT_SEED = 0  # the split is part of the task: it stays when the training seed changes
_MAX_DEGREES, _LEAST_SIZE, _MOST_SIZE, _CONTRAST = 20.0, 0.55, 0.9, 0.9
_CROP = 0.45  # of a photograph's height


class Pictures(Dataset[dict[str, Tensor]]):
    """Digits in front of photographs, composed when they are asked for.

    Args:
        digits: float32 [n, 1, 8, 8] in 0..1.
        labels: int64 [n].
        size: pixels of a side, 16 or more.
        seed: of places, turns and crops.
    """

    def __init__(self, digits: Tensor, labels: Tensor, size: int, seed: int) -> None:
        if size < 16:
            raise SystemExit(f"--size {size}: a digit needs 16 pixels or more")
        self.digits, self.labels, self.size, self.seed = digits, labels, size, seed

    def __len__(self) -> int:
        """The number of digits; draws go on past it, into the next epochs."""
        return len(self.digits)

    def __getitem__(self, draw: int) -> dict[str, Tensor]:
        return {name: column[0] for name, column in self.__getitems__([draw]).items()}

    def __getitems__(self, draws: Sequence[int]) -> dict[str, Tensor]:
        """A whole batch of draws at once."""
        numbers = np.asarray(draws, dtype=np.int64)
        epochs, indices = np.divmod(numbers, len(self))
        index = torch.from_numpy(indices)
        noise = torch.from_numpy(uniform(self.seed, epochs, indices, count=8).astype(np.float32))
        digit = self._turned(self.digits[index], *noise[:, :4].unbind(1))
        sign = torch.where(noise[:, 4] < 0.5, -1.0, 1.0).view(-1, 1, 1, 1)
        image = self._crops(*noise[:, 5:].unbind(1)) + sign * _CONTRAST * digit
        return {"image": image, "label": self.labels[index], "draw": torch.from_numpy(numbers)}

    def _turned(self, digits: Tensor, turn: Tensor, scale: Tensor, left: Tensor, up: Tensor) -> Tensor:
        size = _LEAST_SIZE + (_MOST_SIZE - _LEAST_SIZE) * scale
        angle = torch.deg2rad((2 * turn - 1) * _MAX_DEGREES)
        x, y = _axes(self.size)
        x = (x - ((2 * left - 1) * (1 - size)).view(-1, 1, 1)) / size.view(-1, 1, 1)
        y = (y - ((2 * up - 1) * (1 - size)).view(-1, 1, 1)) / size.view(-1, 1, 1)
        cos, sin = (f(angle).view(-1, 1, 1) for f in (torch.cos, torch.sin))
        grid = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)
        return grid_sample(digits, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    def _crops(self, which: Tensor, left: Tensor, up: Tensor) -> Tensor:
        photographs = _photographs()
        index = (which * len(photographs)).long()
        height, width = photographs.shape[2:]
        half_y, half_x = _CROP, _CROP * height / width
        x, y = _axes(self.size)
        x = x * half_x + ((2 * left - 1) * (1 - half_x)).view(-1, 1, 1)
        y = y * half_y + ((2 * up - 1) * (1 - half_y)).view(-1, 1, 1)
        # Photograph by photograph: a copy of one for each picture would be a hundred megabytes.
        crops = torch.empty(len(which), 3, self.size, self.size)
        for number, photograph in enumerate(photographs):
            mine = (index == number).nonzero().flatten()
            grid = torch.stack([x[mine], y[mine]], dim=-1).flatten(0, 1).unsqueeze(0)
            found = grid_sample(photograph.unsqueeze(0), grid, mode="bilinear", align_corners=False)
            crops[mine] = found[0].unflatten(1, (len(mine), self.size)).transpose(0, 1)
        return crops


def splits(size: int, seed: int) -> tuple[Pictures, Pictures]:
    """The training set, composed anew in each epoch from ``seed``, and the test set, composed once."""
    images, labels = load_digits(return_X_y=True)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=1 / 3, stratify=labels, random_state=_SPLIT_SEED
    )
    pixels = torch.from_numpy(images.astype(np.float32) / 16).view(-1, 1, 8, 8)
    answers = torch.from_numpy(labels.astype(np.int64))
    return (
        Pictures(pixels[train], answers[train], size, seed),
        Pictures(pixels[test], answers[test], size, _SPLIT_SEED),
    )


def batches(pictures: Pictures, batch: int, seed: int, **place: int) -> DataLoader[dict[str, Tensor]]:
    """Pictures in the order of an ``ElasticSampler``."""
    sampler: edldist.ElasticSampler = DrawSampler(len(pictures), batch, seed=seed, drop_last=True, **place)
    return DataLoader(pictures, batch_sampler=sampler, collate_fn=_as_it_is)


def _as_it_is(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return batch


def _axes(size: int) -> tuple[Tensor, Tensor]:
    axis = (torch.arange(size, dtype=torch.float32) * 2 + 1) / size - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


@functools.cache
def _photographs() -> Tensor:
    """Float32 [2, 3, 427, 640], each with a mean of 0 and a standard deviation of 1/5."""
    photographs = torch.from_numpy(np.stack(load_sample_images().images)).permute(0, 3, 1, 2).float()
    middle = photographs.mean(dim=(2, 3), keepdim=True)
    return (photographs - middle) / (5 * photographs.std(dim=(1, 2, 3), keepdim=True))
