"""Scikit-learn's handwritten digits: a fixed split, few labels, and augmentation without hidden state.

Every draw is a number: draw ``d`` of a training set of n samples is sample ``d % n`` as epoch
``d // n`` sees it. Its rotation and shift are a hash of (seed, epoch, sample), so the same draw is the
same image, bit for bit, in whatever batch, worker process, rank or restart it is made; and a new epoch
brings new images, so that a teacher's labels cannot simply be stored.

Shapes: B samples, images float32 [B, 1, 16, 16] in 0..1 (the originals are 8x8 with 17 grey levels).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn.functional import grid_sample
from torch.utils.data import DataLoader, Dataset

import edldist

IMAGE_SIZE = 16
TEST_SHARE = 1 / 3
SPLIT_SEED = 0  # the split is part of the task: it stays when the training seed changes
MAX_DEGREES = 25.0
MAX_SHIFT = 0.3  # of half the image's width, in each direction


class Digits(Dataset[dict[str, Tensor]]):
    """Digits that are rotated and shifted anew in each epoch.

    Args:
        images: float32 [n, 1, 8, 8] in 0..1.
        labels: int64 [n], or None for images without labels.
        seed: of the augmentation; None leaves the images as they are (scaled to 16x16).
    """

    def __init__(self, images: Tensor, labels: Tensor | None, seed: int | None = None) -> None:
        self.images = images
        self.labels = labels
        self.seed = seed

    def __len__(self) -> int:
        """The number of samples; draws go on past it, into the next epochs."""
        return len(self.images)

    def __getitem__(self, draw: int) -> dict[str, Tensor]:
        """One draw, without a batch dimension."""
        return {name: column[0] for name, column in self.__getitems__([draw]).items()}

    def __getitems__(self, draws: Sequence[int]) -> dict[str, Tensor]:
        """A whole batch of draws at once: ``image``, ``draw`` (their numbers) and, where known, ``label``."""
        numbers = np.asarray(draws, dtype=np.int64)
        epochs, indices = np.divmod(numbers, len(self))
        index = torch.from_numpy(indices)
        if self.seed is None:
            degrees = shift_x = shift_y = torch.zeros(len(draws))
        else:
            noise = 2 * uniform(self.seed, epochs, indices, count=3) - 1
            degrees, shift_x, shift_y = torch.from_numpy(noise.astype(np.float32)).unbind(1)
        image = transform(self.images[index], degrees * MAX_DEGREES, shift_x * MAX_SHIFT, shift_y * MAX_SHIFT)
        batch = {"image": image, "draw": torch.from_numpy(numbers)}
        return batch if self.labels is None else batch | {"label": self.labels[index]}


class DrawSampler(edldist.ElasticSampler):
    """An ElasticSampler whose numbers carry their epoch, as ``Digits`` wants them.

    The epoch travels with each number, so nothing has to be told to a dataset that may have been
    copied into worker processes, or that is read ahead into the next epoch.
    """

    def __iter__(self) -> Iterator[list[int]]:
        first = self.epoch * self.n
        return ([first + index for index in indices] for indices in super().__iter__())


def splits(seed: int) -> tuple[Digits, Digits]:
    """The training set, augmented from ``seed``, and the untouched test set. They share no sample."""
    images, labels = load_digits(return_X_y=True)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=TEST_SHARE, stratify=labels, random_state=SPLIT_SEED
    )
    pixels = torch.from_numpy(images.astype(np.float32) / 16).view(-1, 1, 8, 8)
    answers = torch.from_numpy(labels.astype(np.int64))
    return Digits(pixels[train], answers[train], seed), Digits(pixels[test], answers[test])


def unlabelled(dataset: Digits) -> Digits:
    """The same images, drawn in the same way, without their labels."""
    return Digits(dataset.images, None, dataset.seed)


def labelled(dataset: Digits, per_class: int, seed: int) -> Digits:
    """``per_class`` images of each class, chosen by ``seed``, with their labels.

    Raises:
        SystemExit: a class has fewer.
    """
    if dataset.labels is None:
        raise ValueError("no labels to choose from")
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for number in dataset.labels.unique().tolist():
        members = (dataset.labels == number).nonzero().flatten()
        if not 1 <= per_class <= len(members):
            raise SystemExit(
                f"--labels-per-class {per_class}: class {number} has {len(members)} training images"
            )
        chosen.append(members[torch.randperm(len(members), generator=generator)[:per_class]])
    index = torch.cat(chosen)
    return Digits(dataset.images[index], dataset.labels[index], dataset.seed)


def train_loader(dataset: Digits, sampler: DrawSampler, **options: Any) -> DataLoader[dict[str, Tensor]]:
    """Batches of the training set in the sampler's order; ``__getitems__`` has collated them already."""
    return DataLoader(dataset, batch_sampler=sampler, collate_fn=_as_it_is, **options)


def _as_it_is(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return batch


def uniform(seed: int, epochs: np.ndarray, indices: np.ndarray, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1), float64 [B, count]: a function of (seed, epoch, index) and nothing else.

    Each is the SplitMix64 finaliser (Steele, Lea and Flood, 2014), applied to one coordinate after the
    other, so that neighbours share nothing.
    """
    state = mix(np.full(len(indices), seed % 2**64, dtype=np.uint64))
    for coordinate in (epochs, indices):
        state = mix(state ^ coordinate.astype(np.uint64))
    columns = [mix(state ^ np.uint64(column + 1)) for column in range(count)]
    return np.stack([(bits >> np.uint64(11)) * 2.0**-53 for bits in columns], axis=1)


def mix(bits: np.ndarray) -> np.ndarray:
    """Spread each uint64 over all its bits (SplitMix64); arithmetic wraps around on purpose."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def transform(images: Tensor, degrees: Tensor, shift_x: Tensor, shift_y: Tensor) -> Tensor:
    """Rotate, shift and enlarge: float32 [B, 1, 8, 8] and three float32 [B] -> [B, 1, 16, 16].

    The sampling grid is made of elementwise products rather than by ``affine_grid``, whose matrix
    product may round differently in batches of different sizes.
    """
    axis = (torch.arange(IMAGE_SIZE, dtype=torch.float32) * 2 + 1) / IMAGE_SIZE - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    cos, sin = (f(torch.deg2rad(degrees)).view(-1, 1, 1) for f in (torch.cos, torch.sin))
    grid = torch.stack(
        [cos * x - sin * y + shift_x.view(-1, 1, 1), sin * x + cos * y + shift_y.view(-1, 1, 1)], dim=-1
    )
    return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
