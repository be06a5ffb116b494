"""What ``edldist label`` labels of the digits: all images that a student sees in its first epochs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from examples.digits.data import Digits, splits, unlabelled

__all__ = ["draws"]


class Draws(Dataset[dict[str, Tensor]]):
    """The draws of the first epochs of a training set, by the numbers that a run gives them.

    Args:
        dataset: the training set, whose draws go on past its length.
        epochs: how many.
    """

    def __init__(self, dataset: Digits, epochs: int) -> None:
        self._dataset = dataset
        self._epochs = epochs

    def __len__(self) -> int:
        return len(self._dataset) * self._epochs

    def __getitem__(self, draw: int) -> dict[str, Tensor]:
        return self._dataset[draw]

    def __getitems__(self, draws: Sequence[int]) -> dict[str, Tensor]:
        return self._dataset.__getitems__(draws)


def draws(epochs: int, seed: int = 0) -> DataLoader[dict[str, Tensor]]:
    """The unlabelled images of so many epochs, rotated and shifted as a run of that seed does it.

    Batches are collated by the data set itself; which samples are in one is the labeller's choice.
    """
    return DataLoader(Draws(unlabelled(splits(seed)[0]), epochs), collate_fn=lambda batch: batch)
