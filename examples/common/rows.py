"""Samples that lie in memory as tensors, taken a whole batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

__all__ = ["Rows"]

Batch = dict[str, Tensor]


class Rows(Dataset[Batch]):
    """Tensors by name, with a row for each sample.

    Raises:
        ValueError: there is no tensor, or they have different numbers of rows.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        counts = {name: len(tensor) for name, tensor in tensors.items()}
        if len(set(counts.values())) != 1:
            raise ValueError(f"every tensor needs a row for each sample; there are {counts}")
        self._tensors = dict(tensors)
        self._count = next(iter(counts.values()))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Batch:
        return {name: tensor[number] for name, tensor in self._tensors.items()}

    def __getitems__(self, numbers: Sequence[int]) -> Batch:
        """A batch, which needs no collating any more."""
        at = torch.as_tensor(numbers)
        return {name: tensor[at] for name, tensor in self._tensors.items()}

    def loader(self, batches: Iterable[Sequence[int]]) -> DataLoader[Batch]:
        """Batches of the rows that a batch sampler names."""
        return DataLoader(self, batch_sampler=batches, collate_fn=_as_it_is)


def _as_it_is(batch: Batch) -> Batch:
    return batch
