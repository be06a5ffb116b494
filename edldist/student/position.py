"""Where the training loop is in its data: what it has consumed, never what was read ahead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from edldist.errors import CheckpointError
from edldist.student.sampler import ElasticSampler, Share

__all__ = ["CountedPosition", "Mark", "Position", "SampledPosition", "position_of"]


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

    def __init__(self, data_loader: Iterable[Any], sampler: ElasticSampler) -> None:
        self._data_loader = data_loader
        self._sampler = sampler
        self._begun: int | None = None

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
        return self._marked(iter(self._data_loader), self._sampler.samples)

    def _marked(self, batches: Iterator[Any], position: int) -> Iterator[tuple[Any, Mark]]:
        for batch in batches:
            share = self._sampler.share(position)
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

    def __init__(self, data_loader: Iterable[Any]) -> None:
        self._data_loader = data_loader
        self._stateful = hasattr(data_loader, "state_dict") and hasattr(data_loader, "load_state_dict")
        self._epoch = 0
        self._batches = 0
        self._samples = 0
        self._loader_state: Any = None
        self._begun = False

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
        batches = iter(self._data_loader)
        if not self._stateful:
            for skipped in range(self._batches):
                if next(batches, batches) is batches:
                    raise CheckpointError(
                        f"the checkpoint is at batch {self._batches} of epoch {self._epoch}; "
                        f"the data loader ended after {skipped}"
                    )
        return self._marked(batches)

    def _marked(self, batches: Iterator[Any]) -> Iterator[tuple[Any, Mark]]:
        for batch in batches:
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


def position_of(data_loader: Iterable[Any]) -> Position:
    """The position that fits a data loader."""
    for name in ("batch_sampler", "sampler"):
        sampler = getattr(data_loader, name, None)
        if isinstance(sampler, ElasticSampler):
            return SampledPosition(data_loader, sampler)
    return CountedPosition(data_loader)


def _part(state: Mapping[str, Any], key: str) -> Any:
    try:
        return state[key]
    except KeyError:
        raise CheckpointError(
            f"the saved state of the loader lacks {key!r} (it has {', '.join(state) or 'nothing'}): "
            "it was saved with another kind of data loader. Use an ElasticSampler in both runs, or in neither"
        ) from None
