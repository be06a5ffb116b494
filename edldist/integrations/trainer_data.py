"""A ``DistillLoader`` in the place of a Hugging Face ``Trainer``'s training data loader."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from edldist.errors import InputError
from edldist.student.loader import DistillLoader

__all__ = ["SOFT", "TrainerData"]

SOFT = "edldist"
"""Key of a batch under which the Trainer carries what came with it: its labels and its weight."""

_IGNORED = -100


class TrainerData(DataLoader[Any]):
    """Yields a ``DistillLoader``'s batches as dicts, with ``{"labels": ..., "weight": ...}`` under ``SOFT``.

    A Trainer that resumes in mid-epoch skips batches: it makes another data loader of this one's data set,
    reads as many batches as it takes to have been consumed, and throws them away. Here the position says
    where to go on, so nothing is read or labelled twice: as many placeholders come first.

    Args:
        loader: is iterated.
        length: batches of a whole epoch; None if nobody knows.
        samples: of the data set behind it; None if nobody knows.
        teacher_only: keys of a batch that do not go on to the Trainer.
    """

    def __init__(
        self,
        loader: DistillLoader,
        length: int | None,
        samples: int | None,
        teacher_only: Collection[str] = (),
    ) -> None:
        self.loader = loader
        self._length = length
        hidden = frozenset(teacher_only)
        batches = _Batches(loader, hidden) if samples is None else _CountedBatches(loader, hidden, samples)
        super().__init__(batches, batch_size=None, collate_fn=_same)

    def __len__(self) -> int:
        if self._length is None:
            raise TypeError("the training data has no length")
        return self._length

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch that it begins at its start."""
        self.loader.set_epoch(epoch)

    def skip(self, batches: int) -> None:
        """The Trainer is going to throw away so many batches, which were consumed before a restart."""
        self.dataset.placeholders = batches  # type: ignore[attr-defined]


class _Batches(IterableDataset[Any]):
    def __init__(self, loader: DistillLoader, hidden: frozenset[str]) -> None:
        self._loader = loader
        self._hidden = hidden
        self.placeholders = 0

    def __iter__(self) -> Iterator[Any]:
        placeholders, self.placeholders = self.placeholders, 0
        for _ in range(placeholders):
            yield None
        for batch, labels in self._loader:
            if not isinstance(batch, Mapping):
                raise InputError(
                    f"the data collator made a {type(batch).__name__} of a batch; a Trainer's model takes "
                    "keyword arguments, so let it make a dict"
                )
            weight = self._loader.loss_weight
            seen = {name: value for name, value in batch.items() if name not in self._hidden}
            made = {**seen, SOFT: {"labels": labels, "weight": weight}}
            if not weight and isinstance(made.get("labels"), torch.Tensor):
                # Nothing of it is this rank's: it must not be among the tokens that a mean is taken over.
                made["labels"] = torch.full_like(made["labels"], _IGNORED)
            yield made


class _CountedBatches(_Batches):
    def __init__(self, loader: DistillLoader, hidden: frozenset[str], samples: int) -> None:
        super().__init__(loader, hidden)
        self._samples = samples

    def __len__(self) -> int:
        return self._samples


def _same(batch: Any) -> Any:
    return batch
