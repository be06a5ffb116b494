"""The order of an epoch, drawn from numbers of its own wherever and whenever its index lists are made."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterable, Iterator
from typing import Any

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

from edldist.sampling.composition import components
from edldist.sampling.position import Reseed

__all__ = ["IndexLists"]

_AT_ONCE = DistributedSampler, RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler
"""Samplers of torch's that draw a whole epoch when they are asked for its first index."""

_MOST_LOADERS = 64  # components are no more: see ``composition``


class IndexLists:
    """Makes the order of an epoch a function of (seed, epoch), however a ``DataLoader`` is read.

    A ``DataLoader`` asks its sampler for index lists when they are needed: the first ones as it is opened if
    it has worker processes (``prefetch_factor`` for each), behind the base seed that it draws for them unless
    they persist from the epoch before; without workers, each with its batch. What a sampler draws from the
    global generators would be other numbers each time, and an epoch that is resumed with another
    ``num_workers`` would go on in another order. So each list has a place of its own, to which the generators
    go before it is made.

    Streams (``IterableDataset``) have no lists: see ``stream_layout`` in ``composition``.

    Args:
        data_loader: any iterable; the ``DataLoader``s that it consists of count.
        reseed: see ``Reseed``. Lists are at places below 0.
    """

    def __init__(self, data_loader: Iterable[Any], reseed: Reseed) -> None:
        self._data_loader = data_loader
        self._reseed = reseed

    @contextlib.contextmanager
    def seeded(self, epoch: int) -> Iterator[None]:
        """What is opened inside has the lists of this epoch."""
        with contextlib.ExitStack() as lent:
            for number, loader in enumerate(self._loaders()):
                lent.enter_context(_lent(loader, self._reseed, epoch, number))
            yield

    def _loaders(self) -> Iterator[DataLoader[Any]]:
        for kind, value, _ in components(self._data_loader):
            if (
                kind == "data loader"
                and isinstance(value, DataLoader)
                # One that wraps another may be a DataLoader by its class alone, as Accelerate's are.
                and {"sampler", "batch_sampler", "_iterator"} <= vars(value).keys()
                and not isinstance(value.dataset, IterableDataset)
                and not hasattr(value, "state_dict")
            ):
                yield value


@contextlib.contextmanager
def _lent(loader: DataLoader[Any], reseed: Reseed, epoch: int, number: int) -> Iterator[None]:
    """Let what a ``DataLoader`` opens ask for its lists through a ``_Lists``."""
    name = "sampler" if loader.batch_sampler is None else "batch_sampler"
    own = vars(loader)
    sampler = own[name]
    lists = own[name] = _Lists(sampler, reseed, epoch, number)
    # An iterator with persistent workers keeps the sampler of its first epoch: not this one of ours.
    if own["_iterator"] is not None:
        own["_iterator"]._index_sampler = lists
    try:
        yield
    finally:
        own[name] = sampler
        if own["_iterator"] is not None:
            own["_iterator"]._index_sampler = sampler


class _Lists:
    """A sampler whose every list is drawn at a place of its own; otherwise the sampler itself."""

    def __init__(self, sampler: Any, reseed: Reseed, epoch: int, number: int) -> None:
        self._sampler = sampler
        self._reseed = reseed
        self._epoch = epoch
        self._number = number
        self._thread = threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[Any]:
        self._go_to(0)
        return self._drawn(iter(self._sampler))

    def _drawn(self, lists: Iterator[Any]) -> Iterator[Any]:
        at_once = _draws_at_once(self._sampler)
        for place in itertools.count(1):
            if place == 1 or not at_once:
                self._go_to(place)
            try:
                indices = next(lists)
            except StopIteration:
                return
            yield indices

    def _go_to(self, place: int) -> None:
        # A data loader that is read in a thread of its own draws what the loop draws, as in plain training.
        if self._thread == threading.get_ident():
            self._reseed(self._epoch, -1 - (place * _MOST_LOADERS + self._number))


def _draws_at_once(sampler: Any) -> bool:
    while type(sampler) is BatchSampler:
        sampler = sampler.sampler
    return type(sampler) in _AT_ONCE
