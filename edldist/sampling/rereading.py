"""Some samples of a data set, read several times over as a data loader reads them: do they look alike?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from edldist.lifecycle import readers
from edldist.sampling.composition import components
from edldist.sampling.sampler import ElasticSampler

__all__ = ["Reread", "reread"]

_PATIENCE_S = 60.0
"""How long the worker process that reads them may take for a batch, where the data loader does not say."""


class Reread(NamedTuple):
    """The same samples, read several times.

    Attributes:
        indices: of the samples in the data set.
        data_set: what it is, for what is said of it.
        batches: one for each time, as the data loader makes them.
    """

    indices: list[int]
    data_set: str
    batches: list[Any]

    def named(self, row: int, rows: int) -> str:
        """What stands in a row of a batch, of so many rows, in words."""
        which = (
            f"sample {self.indices[row]}"
            if rows == len(self.indices)
            else f"a batch of the samples {self.indices}"
        )
        return f"{which} of the data set ({self.data_set})"


def reread(data_loader: Iterable[Any], samples: int = 4, times: int = 4) -> Reread | None:
    """Read some samples again and again, by way of the data loader's data set and ``collate_fn``.

    In this process where the data loader reads here, else in a worker process of their own, as its own are
    started: what reading opens is opened where it is opened anyway. The position is not moved, nor is a
    sampler asked for anything. Whoever calls it sees to the global random generators (``DataDraws.apart``).

    Args:
        samples: how many, spread over the data set.
        times: how often.

    Returns:
        None where nobody knows how: a stream, a sampler that is neither ours nor torch's, no ``DataLoader``.

    Raises:
        Exception: whatever the data set raises.
    """
    found = _indexed(data_loader)
    if found is None or not (listed := _indices(found)):
        return None
    count = min(samples, len(listed))
    chosen = [int(listed[len(listed) * at // count]) for at in range(count)]
    workers = min(1, found.num_workers)
    options: dict[str, Any] = {
        "num_workers": workers,
        "collate_fn": found.collate_fn,
        "worker_init_fn": found.worker_init_fn,
        "multiprocessing_context": found.multiprocessing_context if workers else None,
        "timeout": (found.timeout or _PATIENCE_S) if workers else 0,
    }
    if found.batch_sampler is None:  # its data set makes whole batches, one for each index
        chosen = chosen[:1]
        again = DataLoader(found.dataset, batch_size=None, sampler=chosen * times, **options)
    else:
        again = DataLoader(found.dataset, batch_sampler=[chosen] * times, **options)
    with readers.reading():
        return Reread(chosen, type(found.dataset).__name__, list(again))


def _indexed(data_loader: Iterable[Any]) -> DataLoader[Any] | None:
    """The one ``DataLoader`` in it that reads a data set by indices."""
    found = [
        value
        for kind, value, _ in components(data_loader)
        if kind == "data loader"
        and isinstance(value, DataLoader)
        # One that wraps another may be a DataLoader by its class alone, as Accelerate's are.
        and {"dataset", "sampler", "batch_sampler", "collate_fn"} <= vars(value).keys()
        and not isinstance(value.dataset, IterableDataset)
    ]
    return found[0] if len(found) == 1 else None


def _indices(loader: DataLoader[Any]) -> Sequence[int] | None:
    """Which samples it may list, by what is known of its sampler; None for one that nobody knows."""
    sampler: Any = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    while type(sampler) is BatchSampler:
        sampler = sampler.sampler
    if isinstance(sampler, ElasticSampler):
        return range(sampler.n)
    kind = type(sampler)
    if kind in (RandomSampler, SequentialSampler):
        return range(len(sampler.data_source))
    if kind is DistributedSampler:
        return range(len(sampler.dataset))
    if kind is SubsetRandomSampler:
        return sampler.indices  # type: ignore[no-any-return]
    if kind is WeightedRandomSampler:
        return sampler.weights.nonzero().flatten().tolist()  # type: ignore[no-any-return]
    return None
