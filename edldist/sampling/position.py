"""Where the training loop is in its data: what it has consumed, never what was read ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from edldist.errors import CheckpointError
from edldist.sampling.sampler import Part

__all__ = ["Mark", "Position", "Reseed", "part_of", "unseeded"]

Reseed = Callable[[int, int], None]
"""Called with (epoch, place) before each part of a data loader is read: see ``DataDraws.reseed``."""


def unseeded(epoch: int, place: int) -> None:
    """Leave random numbers alone."""


class Mark(NamedTuple):
    """What is remembered of a batch from reading it until its consumption.

    Attributes:
        part: this rank's part of the global batch, behind an ``ElasticSampler``.
        state: a copy of the data loader's own state after this batch was read, if it has one.
        epoch: the one that it is of.
    """

    part: Part | None = None
    state: Any = None
    epoch: int = 0


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

    def check(self, mark: Mark, samples: int) -> None:
        """Refuse a batch of so many samples that its mark does not fit.

        Raises:
            InputError: counted and weighed as its mark says, it would be counted or weighed wrongly.
        """
        ...

    def consume(self, mark: Mark, samples: int) -> int:
        """The loop took a batch of ``samples``; returns how many of them count (padding does not)."""
        ...

    def settle(self) -> None:
        """End an epoch that was begun and not ended: the one behind it is what ``start`` begins."""
        ...

    def end_epoch(self) -> None:
        """The data loader is exhausted and all of it consumed."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; naming the current one keeps the position, to resume inside it.

        Raises:
            ConfigError: it cannot be gone to.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """What is the same on all ranks; with one rank, everything."""
        ...

    def rank_state_dict(self) -> dict[str, Any] | None:
        """What is this rank's alone; None if that is nothing."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved position, as far as it is the same on all ranks; nothing changes if it is refused."""
        ...

    def load_rank_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """This rank's own part of the position that ``load_state_dict`` got; None if none was saved."""
        ...


def part_of(state: Mapping[str, Any], key: str) -> Any:
    try:
        return state[key]
    except KeyError:
        raise CheckpointError(
            f"the saved state of the loader lacks {key!r} (it has {', '.join(state) or 'nothing'}): "
            "it was saved with another kind of data loader. Use an ElasticSampler in both runs, or in neither"
        ) from None
