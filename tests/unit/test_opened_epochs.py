"""Where a position opens, seeds and begins an epoch, and which batches it refuses."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from edldist.errors import ConfigError, InputError
from edldist.sampling.counted import CountedPosition
from edldist.sampling.position import Mark
from edldist.sampling.sampled import SampledPosition
from edldist.sampling.sampler import ElasticSampler


class Places(list[tuple[int, int]]):
    """Notes the epochs and places at which random numbers are seeded."""

    def __call__(self, epoch: int, place: int) -> None:
        self.append((epoch, place))


def sampled(data_loader: Any = None, **options: Any) -> SampledPosition:
    """Rank 1 of 2 reads 20 samples, in steps of 6."""
    sampler = ElasticSampler(20, 6, seed=3, rank=1, world_size=2)
    loader = DataLoader(list(range(20)), batch_sampler=sampler) if data_loader is None else data_loader
    return SampledPosition(loader, sampler, **options)


def read(position: SampledPosition | CountedPosition) -> None:
    """Read an epoch, of which nothing is consumed."""
    for _ in position.start():
        pass


def consume(position: SampledPosition | CountedPosition, batches: int) -> None:
    """Consume the first batches of an epoch."""
    source = position.start()
    for _ in range(batches):
        batch, mark = next(source)
        position.consume(mark, len(batch))


def first_mark(position: SampledPosition) -> Mark:
    return next(position.start())[1]


def test_behind_a_sampler_each_part_is_seeded_for_where_it_is_in_the_order() -> None:
    places = Places()
    read(sampled(reseed=places))
    assert places == [(0, 0), (0, 4), (0, 10), (0, 16), (0, 20), (0, 21)]


def test_without_a_sampler_each_batch_is_seeded_for_its_number() -> None:
    places = Places()
    position = CountedPosition([[1], [2]], places)
    read(position)
    assert places == [(0, 0), (0, 1), (0, 2), (0, 3)]
    places.clear()
    for _ in position.start_next():
        pass
    assert places == [(1, 0), (1, 1), (1, 2), (1, 3)]


def test_the_same_epoch_once_more_has_the_order_of_the_data_loaders_own_generator() -> None:
    generator = torch.Generator().manual_seed(1)
    loader = DataLoader(range(64), batch_size=64, shuffle=True, generator=generator)
    position = CountedPosition(loader)
    orders = []
    for _ in range(2):
        orders.append([batch.tolist() for batch, _ in position.start()])
        position.set_epoch(0)
    assert orders[0] == orders[1]


class Told(DataLoader[int]):
    """A data loader that counts its epochs, and can be told the one that is opened."""

    iteration = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def test_a_data_loader_behind_a_sampler_is_told_its_epoch() -> None:
    sampler = ElasticSampler(8, 4)
    loader = Told(range(8), batch_sampler=sampler)
    position = SampledPosition(loader, sampler)
    position.set_epoch(5)
    read(position)
    assert loader.epoch == 5


def test_more_batches_than_the_sampler_lists_are_refused() -> None:
    with pytest.raises(ConfigError, match="no global batch starts at position=20"):
        read(sampled([[0]] * 5))


class Batch(list[int]):
    """One of which one can see whether it is still there."""


@pytest.mark.parametrize("position_of", [sampled, CountedPosition])
def test_a_batch_is_held_by_nobody_while_it_is_open(position_of: Any) -> None:
    def batches() -> Any:
        yield Batch([0, 1, 2])

    source = position_of(batches()).start()
    batch, _ = next(source)
    seen = weakref.ref(batch)
    del batch
    assert seen() is None
    source.close()


def test_two_ranks_refuse_a_batch_of_another_size() -> None:
    position = sampled()
    mark = first_mark(position)
    position.check(mark, 6)  # two views of each picture, from now on
    with pytest.raises(InputError, match="a batch of 3 samples out of 3 indices"):
        position.check(mark, 3)


def test_an_epoch_that_was_begun_begins_again_when_it_is_named_or_restored() -> None:
    position = sampled()
    position.start()
    position.set_epoch(0)
    position.start()
    assert position.epoch == 0
    position.load_state_dict(position.state_dict())
    position.start()
    assert position.epoch == 0
    position.start()
    assert position.epoch == 1, "begun, and left"


def test_an_epoch_that_ended_can_be_gone_back_to_by_its_sampler() -> None:
    sampler = ElasticSampler(8, 4)
    position = SampledPosition(DataLoader(range(8), batch_sampler=sampler), sampler)
    position.start()
    position.end_epoch()
    sampler.set_epoch(0)
    position.start()
    assert position.epoch == 0


def test_behind_a_sampler_the_samples_of_all_ranks_are_counted() -> None:
    position = sampled()
    consume(position, 2)
    assert (position.epoch, position.samples) == (0, 12)


def test_without_a_sampler_this_ranks_samples_are_counted() -> None:
    position = CountedPosition([[0, 1], [2, 3], [4]])
    consume(position, 2)
    assert (position.epoch, position.samples) == (0, 4)


def either() -> tuple[SampledPosition, CountedPosition]:
    sampler = ElasticSampler(20, 6, seed=3)
    loader = DataLoader(list(range(20)), batch_sampler=sampler)
    return SampledPosition(loader, sampler), CountedPosition([[n] for n in range(5)])


def test_an_epoch_that_was_opened_ahead_is_entered_once_where_the_position_is() -> None:
    for position in either():
        position.start()
        ahead = position.start_next()
        position.end_epoch()
        assert position.enter_next() and not position.enter_next()
        assert sum(len(batch) for batch, _ in ahead) in (5, 20), "all of it"
        position.settle()
        assert position.epoch == 2, "it was begun"


def test_an_epoch_that_was_opened_ahead_is_not_entered_where_the_position_is_elsewhere() -> None:
    for position in either():
        position.start_next()
        assert not position.enter_next(), "in the epoch before it"
        position.start_next()
        position.set_epoch(3)
        assert not position.enter_next(), "in one behind it"


def test_an_epoch_that_was_opened_ahead_is_not_entered_when_it_was_begun() -> None:
    for position in either():
        position.start_next()
        position.end_epoch()
        source = position.start()
        assert not position.enter_next()
        position.set_epoch(0)
        position.start_next()
        position.end_epoch()
        source = position.start()
        batch, mark = next(source)
        position.consume(mark, len(batch))
        position.set_epoch(1)
        assert not position.enter_next(), "in the middle of it"
