"""Where the training loop is in its data: what it has consumed, never what was read ahead."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from edldist.errors import CheckpointError
from edldist.student.sampler import ElasticSampler, Share

__all__ = [
    "CountedPosition",
    "Mark",
    "Position",
    "Reseed",
    "SampledPosition",
    "obstacle_ahead",
    "position_of",
]

Reseed = Callable[[int, int], None]
"""Called with (epoch, place) before each part of a data loader is read: see ``DataDraws.reseed``."""


_DEEPEST = 8  # data sets within data sets that are looked into


def _unseeded(epoch: int, place: int) -> None:
    """Leave random numbers alone."""


class Mark(NamedTuple):
    """What is remembered of a batch from reading it until its consumption.

    Attributes:
        share: this rank's part of the global batch, behind an ``ElasticSampler``.
        state: the data loader's own state after this batch was read, if it has one.
    """

    share: Share | None = None
    state: Any = None


class Position(Protocol):
    """One data loader's position. Owned by the trainer's thread."""

    @property
    def epoch(self) -> int: ...

    @property
    def samples(self) -> int:
        """Samples of this epoch consumed so far, as far as this rank knows."""
        ...

    def start(self) -> Iterator[tuple[Any, Mark]]:
        """Iterate from here: the epoch's rest after a restore, else the epoch after the last one begun."""
        ...

    def start_next(self) -> Iterator[tuple[Any, Mark]]:
        """Iterate over the epoch after this one from its start, without moving."""
        ...

    def enter_next(self) -> bool:
        """Begin the epoch that ``start_next`` reads; False if that is not where the position is."""
        ...

    def consume(self, mark: Mark, samples: int) -> int:
        """The loop took a batch of ``samples``; returns how many of them count (padding does not)."""
        ...

    def end_epoch(self) -> None:
        """The data loader is exhausted and all of it consumed."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class SampledPosition:
    """Behind an ``ElasticSampler``, which knows the order and holds the position."""

    def __init__(
        self, data_loader: Iterable[Any], sampler: ElasticSampler, reseed: Reseed = _unseeded
    ) -> None:
        self._data_loader = data_loader
        self._sampler = sampler
        self._reseed = reseed
        self._begun: int | None = None
        self._next: _Where | None = None  # where start_next began

    @property
    def epoch(self) -> int:
        return self._sampler.epoch

    @property
    def samples(self) -> int:
        return self._sampler.samples

    def start(self) -> Iterator[tuple[Any, Mark]]:
        if self._begun == self._sampler.epoch:
            self._sampler.set_epoch(self._sampler.epoch + 1)
        self._begun = self._sampler.epoch
        return self._marked(self._batches(), self._sampler.epoch, self._sampler.samples)

    def start_next(self) -> Iterator[tuple[Any, Mark]]:
        following = self._sampler.epoch + 1
        with _standing_at(self._sampler, following):
            self._next = self._where()
            batches = self._batches()
        return self._marked(batches, following, 0)

    def enter_next(self) -> bool:
        expected, self._next = self._next, None
        if self._begun == self._sampler.epoch or expected != self._where():
            return False
        self._begun = self._sampler.epoch
        return True

    def _where(self) -> _Where:
        return _Where(self._sampler.state_dict(), self._sampler.rank, self._sampler.world_size)

    def _batches(self) -> Iterator[Any]:
        self._reseed(self._sampler.epoch, 0)
        return iter(self._data_loader)

    def _marked(self, batches: Iterator[Any], epoch: int, position: int) -> Iterator[tuple[Any, Mark]]:
        while True:
            more = position < self._sampler.epoch_samples
            share = self._sampler.share(position) if more else None
            # Where its samples are in the order: somewhere else on every rank.
            self._reseed(epoch, 1 + (position if share is None else share.start))
            # A sampler that is asked for its epoch only now has to say the one that is read.
            ahead = self._sampler.epoch != epoch
            with _standing_at(self._sampler, epoch) if ahead else contextlib.nullcontext():
                batch = next(batches, batches)
            if batch is batches:
                return
            share = share or self._sampler.share(position)  # refuses what is past the end
            position += share.global_samples
            yield batch, Mark(share=share)

    def consume(self, mark: Mark, samples: int) -> int:
        assert mark.share is not None
        self._sampler.advance(mark.share.global_samples)
        return mark.share.local_samples

    def end_epoch(self) -> None:
        self._sampler.set_epoch(self._sampler.epoch + 1)
        self._begun = None

    def state_dict(self) -> dict[str, Any]:
        return {"sampler": self._sampler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sampler.load_state_dict(_part(state, "sampler"))
        self._begun = None


class CountedPosition:
    """Behind any other iterable: counts batches, and skips them after a restore.

    A data loader with ``state_dict`` and ``load_state_dict`` of its own is repositioned by these.
    """

    def __init__(self, data_loader: Iterable[Any], reseed: Reseed = _unseeded) -> None:
        self._data_loader = data_loader
        self._reseed = reseed
        self._stateful = _is_stateful(data_loader)
        self._epoch = 0
        self._batches = 0
        self._samples = 0
        self._loader_state: Any = None
        self._begun = False
        self._next: int | None = None  # the epoch that start_next began

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def samples(self) -> int:
        return self._samples

    def start(self) -> Iterator[tuple[Any, Mark]]:
        if self._begun:
            self.end_epoch()
        self._begun = True
        self._reseed(self._epoch, 0)
        batches = iter(self._data_loader)
        if not self._stateful:
            for skipped in range(self._batches):
                self._reseed(self._epoch, 1 + skipped)
                if next(batches, batches) is batches:
                    raise CheckpointError(
                        f"the checkpoint is at batch {self._batches} of epoch {self._epoch}; "
                        f"the data loader ended after {skipped}"
                    )
        return self._marked(batches, self._epoch, self._batches)

    def start_next(self) -> Iterator[tuple[Any, Mark]]:
        self._next = self._epoch + 1
        self._reseed(self._next, 0)
        return self._marked(iter(self._data_loader), self._next, 0)

    def enter_next(self) -> bool:
        expected, self._next = self._next, None
        if self._begun or self._batches or expected != self._epoch:
            return False
        self._begun = True
        return True

    def _marked(self, batches: Iterator[Any], epoch: int, number: int) -> Iterator[tuple[Any, Mark]]:
        while True:
            self._reseed(epoch, 1 + number)
            batch = next(batches, batches)
            if batch is batches:
                return
            number += 1
            state = self._data_loader.state_dict() if self._stateful else None  # type: ignore[attr-defined]
            yield batch, Mark(state=state)

    def consume(self, mark: Mark, samples: int) -> int:
        self._batches += 1
        self._samples += samples
        self._loader_state = mark.state
        return samples

    def end_epoch(self) -> None:
        self._epoch += 1
        self._batches = self._samples = 0
        self._loader_state = None
        self._begun = False

    def state_dict(self) -> dict[str, Any]:
        state = {"epoch": self._epoch, "batches": self._batches, "samples": self._samples}
        return state | {"data_loader": self._loader_state} if self._stateful else state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._epoch = _part(state, "epoch")
        self._batches = _part(state, "batches")
        self._samples = _part(state, "samples")
        self._begun = False
        if self._stateful:
            self._loader_state = _part(state, "data_loader")
            if self._loader_state is not None:
                self._data_loader.load_state_dict(self._loader_state)  # type: ignore[attr-defined]


def position_of(data_loader: Iterable[Any], reseed: Reseed = _unseeded) -> Position:
    """The position that fits a data loader."""
    sampler = _elastic_sampler(data_loader)
    if sampler is not None:
        return SampledPosition(data_loader, sampler, reseed)
    return CountedPosition(data_loader, reseed)


def obstacle_ahead(data_loader: Iterable[Any]) -> str | None:
    """Why an epoch of it must not be read before the loop has begun it; None if it may.

    What is read ahead has to be what would be read later, and must not be missed if it is dropped.
    """
    if isinstance(data_loader, Iterator):
        return "it is an iterator, which can be run through only once"
    elastic = _elastic_sampler(data_loader)
    if elastic is None and _is_stateful(data_loader):
        return "it keeps a state of its own (state_dict), which reading ahead would move"
    for name, part in _parts(data_loader):
        if part is not elastic and hasattr(part, "set_epoch"):
            return (
                f"the epoch of its {name} ({type(part).__name__}) is set by the script (set_epoch), which "
                "would come too late"
            )
        if getattr(part, "generator", None) is not None:
            return f"its {name} ({type(part).__name__}) draws from a generator of its own"
    return None


def _elastic_sampler(data_loader: Iterable[Any]) -> ElasticSampler | None:
    for name in ("batch_sampler", "sampler"):
        sampler = getattr(data_loader, name, None)
        if isinstance(sampler, ElasticSampler):
            return sampler
    return None


def _is_stateful(data_loader: Iterable[Any]) -> bool:
    return hasattr(data_loader, "state_dict") and hasattr(data_loader, "load_state_dict")


def _parts(data_loader: Any) -> Iterator[tuple[str, Any]]:
    """A data loader, its samplers, its data set and what these wrap."""
    yield "data loader", data_loader
    for name in ("batch_sampler", "sampler", "dataset"):
        part, inner = getattr(data_loader, name, None), "sampler" if name != "dataset" else name
        for _ in range(_DEEPEST):
            if part is None:
                break
            yield name.replace("_", " "), part
            part = getattr(part, inner, None)


class _Where(NamedTuple):
    """Everything that the index lists of an epoch depend on."""

    state: dict[str, Any]
    rank: int
    world_size: int


@contextlib.contextmanager
def _standing_at(sampler: ElasticSampler, epoch: int) -> Iterator[None]:
    """Let a sampler stand at the start of an epoch for as long as something is read there."""
    state = sampler.state_dict()
    sampler.set_epoch(epoch)
    try:
        yield
    finally:
        sampler.load_state_dict(state)


def _part(state: Mapping[str, Any], key: str) -> Any:
    try:
        return state[key]
    except KeyError:
        raise CheckpointError(
            f"the saved state of the loader lacks {key!r} (it has {', '.join(state) or 'nothing'}): "
            "it was saved with another kind of data loader. Use an ElasticSampler in both runs, or in neither"
        ) from None
