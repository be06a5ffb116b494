"""The position of a data loader behind an ``ElasticSampler``."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from edldist.errors import InputError
from edldist.sampling.composition import tell_epoch
from edldist.sampling.position import Mark, Reseed, part_of, unseeded
from edldist.sampling.sampler import ElasticSampler, Part

__all__ = ["SampledPosition"]

logger = logging.getLogger(__name__)


class SampledPosition:
    """Behind an ``ElasticSampler``, which knows the order and holds the position.

    The k-th batch of an epoch is taken for the sampler's k-th list, and each list for as many samples of the
    batch as it has indices, or for a fixed number of them each (views of one picture). What does not fit
    is refused, unless it makes no difference: where this is the only rank, or where the ranks agree in every
    step on how many samples they have.

    Args:
        data_loader: takes its lists from ``sampler``.
        sampler: is moved as batches are consumed.
        reseed: see ``Reseed``.
        weights_agreed: whether the ranks agree in every step on how many samples each of them has.
    """

    def __init__(
        self,
        data_loader: Iterable[Any],
        sampler: ElasticSampler,
        reseed: Reseed = unseeded,
        weights_agreed: bool = False,
    ) -> None:
        self._data_loader = data_loader
        self._sampler = sampler
        self._reseed = reseed
        self._weights_agreed = weights_agreed
        self._rows_each: int | None = None  # rows of a batch for each index, once known
        self._said: set[str] = set()
        self._begun: int | None = None
        self._next: _Where | None = None  # where start_next began

    @property
    def epoch(self) -> int:
        return self._sampler.epoch

    @property
    def samples(self) -> int:
        return self._sampler.samples

    def start(self) -> Iterator[tuple[Any, Mark]]:
        self.settle()
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
        tell_epoch(self._data_loader, self._sampler.epoch)
        return iter(self._data_loader)

    def _marked(self, batches: Iterator[Any], epoch: int, position: int) -> Iterator[tuple[Any, Mark]]:
        while True:
            more = position < self._sampler.epoch_samples
            part = self._sampler.part(position) if more else None
            # Where its samples are in the order: somewhere else on every rank.
            self._reseed(epoch, 1 + (position if part is None else part.start))
            at_home = self._sampler.epoch == epoch
            batch = next(batches, batches) if at_home else self._read_elsewhere(batches, epoch)
            if batch is batches:
                if more:
                    self._say(
                        f"the data loader ended epoch {epoch} at {position} of the "
                        f"{self._sampler.epoch_samples} samples that its ElasticSampler lists; the others "
                        "count as consumed"
                    )
                return
            part = part or self._sampler.part(position)  # refuses what is past the end
            position += part.global_samples
            items = [(batch, Mark(part=part, epoch=epoch))]
            del batch  # held by nobody here while it is open
            yield items.pop()

    def _read_elsewhere(self, batches: Iterator[Any], epoch: int) -> Any:
        """The next batch of an epoch in which the position is not; the iterator itself if there is none."""
        # A sampler that is asked for its epoch only now has to say the one that is read.
        with _standing_at(self._sampler, epoch):
            return next(batches, batches)

    def check(self, mark: Mark, samples: int) -> None:
        assert mark.part is not None
        if self._fits(mark.part, samples):
            return
        listed = mark.part.listed_samples
        if self._sampler.world_size > 1 and not self._weights_agreed:
            raise InputError(
                f"the data loader made a batch of {samples} samples out of {listed} indices of its "
                "ElasticSampler, which deals the samples of a step to the ranks: loss_weight would be "
                "wrong. Let collate_fn put others in the place of samples that it leaves out, or pass "
                "agree_weights=True"
            )
        self._say(
            f"the data loader made a batch of {samples} samples out of {listed} indices of its "
            "ElasticSampler; what it left out counts as consumed"
        )

    def _fits(self, part: Part, samples: int) -> bool:
        if self._rows_each is None and samples and samples % part.listed_samples == 0:
            self._rows_each = samples // part.listed_samples
        return samples == part.listed_samples * (self._rows_each or 1)

    def consume(self, mark: Mark, samples: int) -> int:
        part = mark.part
        assert part is not None
        self._sampler.advance(part.global_samples)
        if part.local_samples and not self._fits(part, samples):
            return samples
        return part.local_samples

    def settle(self) -> None:
        if self._begun == self._sampler.epoch:
            self.end_epoch()

    def end_epoch(self) -> None:
        self._sampler.set_epoch(self._sampler.epoch + 1)
        self._begun = None

    def set_epoch(self, epoch: int) -> None:
        self._sampler.set_epoch(epoch)
        self._begun = None

    def state_dict(self) -> dict[str, Any]:
        return {"sampler": self._sampler.state_dict()}

    def rank_state_dict(self) -> dict[str, Any] | None:
        return None

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sampler.load_state_dict(part_of(state, "sampler"))
        self._begun = None

    def load_rank_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """The position is the same on all ranks."""

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            logger.warning("%s", text)


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
