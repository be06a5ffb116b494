"""The data set that is labelled: numbered samples, or batches one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate

from edldist.config import LabelConfig
from edldist.errors import ConfigError
from edldist.factories.factory import imported, make
from edldist.factories.signature import takes
from edldist.sampling.rereading import Reread, reread

__all__ = ["Batch", "NumberedSamples", "Stream", "open_data"]

WHAT = "data set"


class Batch(NamedTuple):
    """What the loader reads.

    Attributes:
        content: as the data set's own collating made it.
        numbers: int64 [n], the samples' places in the data set; None of a stream.
    """

    content: Any
    numbers: Tensor | None


class NumberedSamples:
    """A map-style data set: any sample can be asked for by its number, so that only missing ones are read.

    Args:
        samples: has ``__len__`` and ``__getitem__``; ``__getitems__`` is used where it has one.
        collate: makes a batch of a list of them.
        settings: of the section ``label``.
        part: which of how many ranks reads.
    """

    def __init__(
        self, samples: Any, collate: Callable[[Any], Any], settings: LabelConfig, part: tuple[int, int]
    ) -> None:
        self._samples = samples
        self._collate = collate
        self._settings = settings
        self._part = part

    def __len__(self) -> int:
        return len(self._samples)

    def own(self) -> NDArray[np.int64]:
        """The numbers of the samples that this rank labels: every so manieth batch of the data set.

        A function of the ranks' number alone, so that ranks agree on it whenever each of them looks.
        """
        rank, ranks = self._part
        numbers: NDArray[np.int64] = np.arange(len(self))
        mine: NDArray[np.int64] = numbers[numbers // self._settings.batch_size % ranks == rank]
        return mine

    def reread(self) -> Reread | None:
        """Some of the samples, read several times over; None where there are none.

        Raises:
            Exception: whatever the data set raises.
        """
        return reread(
            DataLoader(self._samples, collate_fn=self._collate, num_workers=self._settings.num_workers)
        )

    def batches(self, numbers: NDArray[np.int64]) -> Iterable[Batch]:
        """Those samples, in that order, by worker processes if there are to be some."""
        size = self._settings.batch_size
        lists = [numbers[first : first + size].tolist() for first in range(0, len(numbers), size)]
        return _Numbered(
            DataLoader(
                self._samples,
                batch_sampler=lists,
                collate_fn=self._collate,
                num_workers=self._settings.num_workers,
            ),
            lists,
        )


class _Numbered:
    """A data loader's batches, each with the numbers of its samples."""

    def __init__(self, batches: DataLoader[Any], lists: Sequence[list[int]]) -> None:
        self._batches = batches
        self._lists = lists

    def __len__(self) -> int:
        return len(self._lists)

    def __iter__(self) -> Iterator[Batch]:
        for numbers, content in zip(self._lists, self._batches, strict=True):
            yield Batch(content, torch.tensor(numbers, device="cpu"))


class Stream:
    """Any iterable of batches: it is read from its beginning, whatever of it is labelled already."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return (Batch(content, None) for content in self._batches)


def open_data(settings: LabelConfig, rank: int, ranks: int) -> NumberedSamples | Stream:
    """Make the data set of a job, for one of its ranks.

    A factory may return a map-style data set, a ``DataLoader`` of one (whose collating and worker processes
    are used, and whose order and batches are not), or any other iterable of batches. One of the latter that
    several ranks read takes ``rank`` and ``world_size``, and gives each rank samples of its own.

    Raises:
        ConfigError: it is nothing of these, or several ranks would read the same stream.
        ModelError: the factory is not there, or raised.
    """
    given = dict(settings.kwargs)
    factory = imported(WHAT, settings.data)
    told = {name: value for name, value in (("rank", rank), ("world_size", ranks)) if takes(factory, name)}
    made = make(WHAT, settings.data, {**given, **told})
    part = (rank, ranks)
    if isinstance(made, DataLoader) and not isinstance(made.dataset, IterableDataset):
        if not settings.num_workers:
            settings = settings.model_copy(update={"num_workers": made.num_workers})
        return NumberedSamples(made.dataset, made.collate_fn, settings, part)
    if not isinstance(made, DataLoader) and hasattr(made, "__len__") and hasattr(made, "__getitem__"):
        if isinstance(made, list | tuple | Tensor | np.ndarray | dict):
            raise ConfigError(
                f"{WHAT} {settings.data} returned a {type(made).__name__}: return a data set of samples (a "
                "torch Dataset, as TensorDataset), a DataLoader of one, or a generator of batches"
            )
        return NumberedSamples(made, default_collate, settings, part)
    if not isinstance(made, Iterable):
        raise ConfigError(
            f"{WHAT} {settings.data} returned a {type(made).__name__}, which is neither a data set nor an "
            "iterable of batches"
        )
    if settings.ids == "index":
        raise ConfigError(
            f"label.ids: index, and {WHAT} {settings.data} returned a {type(made).__name__}, whose samples "
            "have no numbers: name the key of the batch that holds ids, or leave ids out"
        )
    if ranks > 1 and len(told) < 2:
        raise ConfigError(
            f"label.nproc_per_node: {ranks} ranks would all read the same stream of {settings.data}: let the "
            "factory take rank and world_size and give each rank samples of its own, or use 1"
        )
    return Stream(made)
