"""The position of a data loader without an ``ElasticSampler``: counted, or told by its own state."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from edldist.errors import CheckpointError, ConfigError
from edldist.ranks.placement import placement
from edldist.sampling.composition import StreamLayout, data_set_size, is_stateful, stream_layout, tell_epoch
from edldist.sampling.index_lists import IndexLists
from edldist.sampling.own_generators import OwnGenerators
from edldist.sampling.own_state import OwnState
from edldist.sampling.position import Mark, Reseed, part_of, unseeded
from edldist.sampling.sampler import ElasticSampler

__all__ = ["CountedPosition"]

logger = logging.getLogger(__name__)


class CountedPosition:
    """Counts what was consumed, and skips it after a restore.

    A data loader with ``state_dict`` and ``load_state_dict`` is not skipped but put where it was, by a copy
    of the state that it had when it had yielded the last batch that was consumed, or had ended. Random
    generators of its own are put back to where they were when the epoch was opened.

    Each rank counts its own samples, and its data loader may be elsewhere than that of another: that much
    is this rank's own part of a saved position, and goes to the same rank of as many ranks. In the middle
    of an epoch, or with a state of the data loader's own, another number of ranks is refused: only an
    ``ElasticSampler`` knows what the others had. In the middle of an epoch a data set of another size is
    refused, too.

    Args:
        data_loader: any iterable.
        reseed: see ``Reseed``.
        count: the number of samples of a batch.
    """

    def __init__(
        self, data_loader: Iterable[Any], reseed: Reseed = unseeded, count: Callable[[Any], int] = len
    ) -> None:
        self._data_loader = data_loader
        self._reseed = reseed
        self._count = count
        self._own = OwnState(data_loader) if is_stateful(data_loader) else None
        self._generators = OwnGenerators(data_loader)
        self._lists = IndexLists(data_loader, reseed)
        self._draws: list[Tensor] | None = None  # their states when the epoch was opened that is running
        self._epoch = 0
        self._batches = 0
        self._samples = 0
        self._own_state: Any = None  # of the data loader; None: as it was made
        self._end: tuple[int, Any] | None = None  # an epoch that was read to its end, and the state there
        self._lacks_rank_part = False
        self._begun = False
        self._next: int | None = None  # the epoch that start_next began

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def samples(self) -> int:
        return self._samples

    # --- reading ------------------------------------------------------------------------------------

    def start(self) -> Iterator[tuple[Any, Mark]]:
        if self._lacks_rank_part:
            raise self._no_rank_part()
        self.settle()
        self._begun = True
        self._draws = self._generators.taken()
        batches = self._opened(self._epoch)
        if self._own is None:
            batches = self._skipped(batches)
        elif not self._batches:
            self._own_state = self._own.taken_at_start()
        return self._marked(batches, self._epoch, self._batches)

    def start_next(self) -> Iterator[tuple[Any, Mark]]:
        self._next = self._epoch + 1
        return self._marked(self._opened(self._next), self._next, 0)

    def enter_next(self) -> bool:
        expected, self._next = self._next, None
        if self._begun or self._batches or expected != self._epoch:
            return False
        self._begun = True
        return True

    def _opened(self, epoch: int) -> Iterator[Any]:
        self._reseed(epoch, 0)
        tell_epoch(self._data_loader, epoch)
        with self._opening(epoch):
            return iter(self._data_loader)

    @contextlib.contextmanager
    def _opening(self, epoch: int) -> Iterator[None]:
        """The data loader is opened, or asked for its first batch: some open what is in them only then."""
        with _in_sight(self._data_loader), self._lists.seeded(epoch):
            yield

    def _first_of(self, batches: Iterator[Any], epoch: int) -> Any:
        """The first batch that is read of an epoch; the iterator itself if there is none."""
        with self._opening(epoch):
            return next(batches, batches)

    def _skipped(self, batches: Iterator[Any]) -> Iterator[Any]:
        """What follows the samples that were consumed, in batches of whatever size."""
        place = f"{self._samples} samples ({self._batches} batches) of epoch {self._epoch}"
        samples = number = 0
        while samples < self._samples or number < self._batches:
            self._reseed(self._epoch, 1 + number)
            batch = self._first_of(batches, self._epoch) if number == 0 else next(batches, batches)
            if batch is batches and samples == self._samples:
                break  # larger batches than before: the last sample of the epoch was consumed
            if batch is batches:
                raise CheckpointError(
                    f"the checkpoint is behind {place}; the data loader ended after {samples} samples "
                    f"({number} batches): it has fewer than the one that the checkpoint was made with"
                )
            size = self._count(batch)
            if size and samples == self._samples:
                batches = itertools.chain([batch], batches)  # fewer batches than before had as many samples
                break
            samples += size
            number += 1
            if samples > self._samples:
                raise CheckpointError(
                    f"the checkpoint is behind {place}; the data loader's batches end at {samples - size} "
                    f"and at {samples} samples, and nothing may be repeated or left out: use the batch size "
                    f"that the checkpoint was made with, or one that divides {self._samples}"
                )
        if number != self._batches:
            logger.info(
                "epoch %d goes on behind %d samples: %d batches of the data loader now, and %d when saved",
                *(self._epoch, samples, number, self._batches),
            )
            self._batches = number
        return batches

    def _marked(self, batches: Iterator[Any], epoch: int, number: int) -> Iterator[tuple[Any, Mark]]:
        first, stateless = number, Mark(epoch=epoch)
        while True:
            self._reseed(epoch, 1 + number)
            batch = self._first_of(batches, epoch) if number == first else next(batches, batches)
            mark = stateless if self._own is None else Mark(state=self._own.taken(), epoch=epoch)
            if batch is batches:
                self._end = epoch, mark.state
                return
            number += 1
            items = [(batch, mark)]
            del batch  # held by nobody here while it is open
            yield items.pop()

    # --- consuming ------------------------------------------------------------------------------------

    def check(self, mark: Mark, samples: int) -> None:
        """Any number fits: it is counted."""

    def consume(self, mark: Mark, samples: int) -> int:
        self._batches += 1
        self._samples += samples
        self._own_state = mark.state
        return samples

    def settle(self) -> None:
        if self._begun:
            self.end_epoch()

    def end_epoch(self) -> None:
        end, self._end = self._end, None
        self._own_state = end[1] if end is not None and end[0] == self._epoch else None
        self._epoch += 1
        self._batches = self._samples = 0
        self._begun = False
        self._draws = None

    def set_epoch(self, epoch: int) -> None:
        if epoch == self._epoch:
            if self._own is not None and self._begun:
                self._own.load(self._own_state)
            if self._draws is not None:
                self._generators.load(self._draws)
        elif self._begun and epoch == self._epoch + 1:
            self.end_epoch()
        elif self._own is not None:
            raise ConfigError(
                f"set_epoch({epoch}) in epoch {self._epoch}: the data loader "
                f"({type(self._data_loader).__name__}) keeps a state of its own, and goes from one epoch to "
                "the next only: restore the state_dict of that epoch, or use an ElasticSampler"
            )
        else:
            self._epoch = epoch
            self._batches = self._samples = 0
            self._lacks_rank_part = False
        self._begun = False
        self._end = None
        self._draws = None

    # --- saving ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        world_size = placement().world_size
        state = {"epoch": self._epoch, "batches": self._batches, "world_size": world_size}
        return state | self._rank_part() if world_size == 1 else state

    def rank_state_dict(self) -> dict[str, Any] | None:
        return None if placement().world_size == 1 else self._rank_part()

    def _rank_part(self) -> dict[str, Any]:
        part: dict[str, Any] = {"samples": self._samples}
        if (size := data_set_size(self._data_loader)) is not None:
            part["data_set"] = size
        if (layout := stream_layout(self._data_loader)) is not None:
            part["stream"] = layout._asdict()
        if draws := self._generators.taken() if self._draws is None else self._draws:
            part["generators"] = draws
        return part if self._own is None else part | {"data_loader": self._own_state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        epoch, batches = part_of(state, "epoch"), part_of(state, "batches")
        saved, here = part_of(state, "world_size"), placement().world_size
        has_rank_part = bool(batches) or self._own is not None
        if has_rank_part and saved != here:
            where = f"batch {batches} of epoch {epoch}" if batches else f"the start of epoch {epoch}"
            raise CheckpointError(
                f"the position of the data loader ({type(self._data_loader).__name__}), {where}, was saved "
                f"by {saved} rank(s), each with its own, and there are {here} now. Go on with {saved} "
                "rank(s), or train with an ElasticSampler, whose position knows no world size"
            )
        if has_rank_part and here == 1:
            self._load_rank_part(state, epoch, batches)
        else:
            self._samples = 0
            self._lacks_rank_part = has_rank_part
            if here == 1:
                self._load_generators(state)
        self._epoch, self._batches = epoch, batches
        self._begun = False
        self._end = None
        self._draws = None

    def load_rank_state_dict(self, state: Mapping[str, Any] | None) -> None:
        if not self._lacks_rank_part:
            if state is not None:
                self._load_generators(state)
            return
        if state is None:
            raise self._no_rank_part()
        self._load_rank_part(state, self._epoch, self._batches)

    def _load_rank_part(self, state: Mapping[str, Any], epoch: int, batches: int) -> None:
        samples, saved_size = part_of(state, "samples"), state.get("data_set")
        size = data_set_size(self._data_loader)
        if batches and None not in (saved_size, size) and saved_size != size:
            raise CheckpointError(
                f"the checkpoint is behind {samples} samples ({batches} batches) of epoch {epoch} of a data "
                f"set of {saved_size} samples, and the data loader's has {size}: others come first in an "
                "order of other samples, so some would be repeated or left out. Use the data set that the "
                "checkpoint was made with, or go on from a checkpoint at the end of an epoch"
            )
        if batches:
            self._check_stream(state.get("stream"), samples, epoch)
        if self._own is not None:
            own_state = part_of(state, "data_loader")
            self._own.load(own_state)
            self._own_state = own_state
        self._load_generators(state)
        self._samples = samples
        self._lacks_rank_part = False

    def _check_stream(self, saved: Mapping[str, int] | None, samples: int, epoch: int) -> None:
        layout = stream_layout(self._data_loader)
        if saved is None or layout is None or layout.same_order(StreamLayout(**saved)):
            return
        raise CheckpointError(
            f"the checkpoint is behind {samples} samples of epoch {epoch} of a stream (IterableDataset) that "
            f"was read with num_workers={saved['num_workers']} and batch_size={saved['batch_size']}, and the "
            f"data loader has num_workers={layout.num_workers} and batch_size={layout.batch_size}: batches "
            "come in another order, so some samples would be repeated and others left out. Use the numbers "
            "that the checkpoint was made with, or go on from a checkpoint at the end of an epoch"
        )

    def _load_generators(self, state: Mapping[str, Any]) -> None:
        if (states := state.get("generators")) is not None:
            self._generators.load(states)

    def _no_rank_part(self) -> CheckpointError:
        return CheckpointError(
            f"the saved position (batch {self._batches} of epoch {self._epoch}) lacks the part of rank "
            f"{placement().rank}: how far this rank's data loader was. A Checkpointer saves it by itself; "
            "who saves by hand keeps rank_state_dict() of every rank beside state_dict(), and gives each "
            "rank its own with load_rank_state_dict()"
        )


@contextlib.contextmanager
def _in_sight(data_loader: Iterable[Any]) -> Iterator[None]:
    """Refuse a data loader that iterates an ``ElasticSampler`` which could not be seen from outside."""
    before = ElasticSampler.iterated()
    yield
    if ElasticSampler.iterated() != before:
        raise ConfigError(
            f"the data loader ({type(data_loader).__name__}) reads from an ElasticSampler that is hidden "
            "inside it, so its position cannot be followed and every epoch would have the same order. Give "
            "the object an attribute that leads to it: batch_sampler, or loader for one that it wraps"
        )
