"""The position of any other data loader: counted, or told by the data loader's own state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from edldist.errors import CheckpointError
from edldist.sampling.look_ahead import is_stateful
from edldist.sampling.position import Mark, Reseed, part_of, unseeded

__all__ = ["CountedPosition"]


class CountedPosition:
    """Behind any other iterable: counts batches, and skips them after a restore.

    A data loader with ``state_dict`` and ``load_state_dict`` of its own is repositioned by these.
    """

    def __init__(self, data_loader: Iterable[Any], reseed: Reseed = unseeded) -> None:
        self._data_loader = data_loader
        self._reseed = reseed
        self._stateful = is_stateful(data_loader)
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
        self._epoch = part_of(state, "epoch")
        self._batches = part_of(state, "batches")
        self._samples = part_of(state, "samples")
        self._begun = False
        if self._stateful:
            self._loader_state = part_of(state, "data_loader")
            if self._loader_state is not None:
                self._data_loader.load_state_dict(self._loader_state)  # type: ignore[attr-defined]
