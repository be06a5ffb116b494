"""Reading goes on with the next epoch's first batches, and only where nobody could tell from the data."""

from __future__ import annotations

import logging
import re

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset

from edldist.errors import ConfigError, LoaderClosedError
from edldist.sampling.sampler import ElasticSampler
from edldist.student.loop.reading import ReadAhead


class Loop:
    """A training loop without labels: reads ahead up to a watermark and consumes in order."""

    def __init__(self, data_loader, epochs: int | None = None, high: int = 4) -> None:
        self.ahead = ReadAhead(data_loader, epochs=epochs)
        self.queue: list = []
        self.high = high
        self.dropped = 0

    def fill(self) -> None:
        self.ahead.fill(lambda: len(self.queue) < self.high, self.queue.append)

    def begin(self) -> None:
        if not self.ahead.begin():
            self.dropped += self.ahead.drop()
            self.queue.clear()
            self.ahead.start()

    def next(self):
        self.fill()
        if self.ahead.ended:
            self.ahead.end()
            return None
        self.ahead.take()
        batch = self.queue.pop(0)
        self.ahead.position.consume(batch.mark, batch.samples)
        return torch.as_tensor(batch.batch).tolist()

    def epoch(self) -> list:
        self.begin()
        return list(iter(self.next, None))


def data(batches: int = 5):
    return [torch.tensor([number]) for number in range(batches)]


def sampled(n: int = 20, **options):
    return DataLoader(torch.arange(n), batch_sampler=ElasticSampler(n, 4, seed=3, **options))


@pytest.mark.parametrize("make", [data, sampled], ids=["list", "sampler"])
def test_every_epoch_is_the_same_with_and_without_reading_ahead(make):
    ahead, plain = Loop(make(), epochs=4), Loop(make())
    for epoch in range(4):
        assert ahead.ahead.position.epoch == epoch
        assert ahead.epoch() == plain.epoch()
        assert len(ahead.queue) == (0 if epoch == 3 else ahead.high)
        assert not plain.queue and not plain.ahead.holds_next
    assert ahead.epoch() == plain.epoch()  # beyond what was announced
    assert ahead.dropped == 0


def test_the_next_epoch_is_read_once_this_one_is_and_behind_it():
    loop = Loop(sampled(), epochs=2)
    loop.begin()
    got = [loop.next() for _ in range(3)]
    assert loop.ahead.holds_next
    assert (
        len(loop.queue) == 2
    )  # all of this epoch's: opened while batches were out: worker processes begin, nobody waits
    got += [loop.next(), loop.next()]
    assert len(loop.queue) == 3  # all of the next epoch's
    assert loop.ahead.position.state_dict()["sampler"]["epoch"] == 0
    assert sorted(sum(got, [])) == list(range(20))
    assert loop.next() is None
    assert loop.ahead.position.state_dict()["sampler"] == ElasticSampler(20, 4, seed=3).state_dict() | {
        "epoch": 1
    }


def test_short_epochs_are_joined_one_by_one():
    loop = Loop(data(2), epochs=3, high=8)
    for _ in range(3):
        assert loop.epoch() == [[0], [1]]
    assert not loop.queue


def test_an_epoch_without_batches_is_one_too():
    loop = Loop([], epochs=3)
    assert [loop.epoch() for _ in range(3)] == [[], [], []]
    assert loop.ahead.position.epoch == 3


def test_leaving_early_drops_what_was_ahead_and_begins_the_next_epoch_anew():
    loop, plain = Loop(sampled(), epochs=3), Loop(sampled())
    loop.begin()
    for _ in range(4):
        loop.next()
    assert loop.ahead.holds_next
    assert loop.ahead.drop() == len(loop.queue) == 3
    loop.queue.clear()
    plain.epoch()
    assert loop.epoch() == plain.epoch()


def test_reading_that_was_dropped_from_elsewhere_says_that_the_loader_was_closed():
    loop = Loop(data())
    loop.begin()
    loop.ahead.drop()
    for use in (loop.fill, lambda: loop.ahead.ended, loop.ahead.take):
        with pytest.raises(LoaderClosedError, match="in the middle of its loop"):
            use()


def move(sampler: ElasticSampler, how: str) -> None:
    if how == "set_epoch":
        sampler.set_epoch(7)
    elif how == "restore":
        sampler.load_state_dict(sampler.state_dict() | {"samples": 8})
    elif how == "settings":
        sampler.seed = 4
    else:
        sampler._rank, sampler._world_size = 1, 2


@pytest.mark.parametrize("how", ["set_epoch", "restore", "settings", "world"])
def test_a_sampler_that_moved_between_two_epochs_is_followed(how):
    loader = sampled(rank=0, world_size=1)
    loop = Loop(loader, epochs=9)
    loop.epoch()
    move(loader.batch_sampler, how)
    other = sampled(rank=0, world_size=1)
    other.batch_sampler.set_epoch(1)
    move(other.batch_sampler, how)
    assert loop.epoch() == [batch.tolist() for batch in other]
    assert loop.dropped == 4


def test_setting_the_epoch_that_comes_anyway_drops_nothing():
    loader = sampled()
    loop = Loop(loader, epochs=3)
    for epoch in range(3):
        loader.batch_sampler.set_epoch(epoch)
        loop.epoch()
    assert loop.dropped == 0


class LateSampler(ElasticSampler):
    """Says its epoch when it is asked for its first list, not when it is iterated."""

    def __iter__(self):
        for indices in super().__iter__():
            yield [index + 100 * self.epoch for index in indices]


class Draws(Dataset):
    """The numbers of its draws, for epochs that travel in them."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, draw: int) -> int:
        return draw


def test_a_sampler_that_is_asked_late_says_the_epoch_that_is_read():
    loop = Loop(DataLoader(Draws(), batch_sampler=LateSampler(20, 4)), epochs=3)
    for epoch in range(3):
        draws = sum(loop.epoch(), [])
        assert sorted(draws) == list(range(100 * epoch, 100 * epoch + 20))


class Broken(Dataset):
    """Fails on one sample in one of its rounds."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.reads = 0

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        self.reads += 1
        if self.reads > self.at:
            raise FileNotFoundError(f"read {self.reads}")
        return index


def test_an_error_of_the_next_epoch_is_raised_there_after_the_batches_before_it():
    loop = Loop(DataLoader(Broken(at=8), batch_size=1), epochs=2)
    assert len(loop.epoch()) == 6
    loop.begin()
    assert [loop.next(), loop.next()] == [[0], [1]]
    with pytest.raises(FileNotFoundError, match="read 9"):
        loop.next()


def test_an_error_of_opening_the_next_epoch_is_raised_there():
    class Once:
        left = 1

        def __iter__(self):
            if not self.left:
                raise ConnectionError("no more")
            self.left -= 1
            return iter(data(3))

    loop = Loop(Once(), epochs=2)
    assert len(loop.epoch()) == 3
    loop.begin()
    with pytest.raises(ConnectionError, match="no more"):
        loop.next()


def test_nothing_is_read_after_an_error_of_this_epoch():
    loop = Loop(DataLoader(Broken(at=3), batch_size=1), epochs=2)
    with pytest.raises(FileNotFoundError):
        loop.epoch()
    assert not loop.ahead.holds_next


class Told(Dataset):
    """A data set that the script tells its epoch."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return index

    def set_epoch(self, epoch: int) -> None:
        pass


class Stateful(list):
    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


OBSTACLES = {
    "iterator": (lambda: iter(data()), "iterator"),
    "stateful": (lambda: Stateful(data()), "state of its own"),
    "generator": (
        lambda: DataLoader([1, 2], generator=torch.Generator()),
        r"data loader \(DataLoader\) draws",
    ),
    "sampler": (
        lambda: DataLoader([1, 2], sampler=DistributedSampler([1, 2], num_replicas=1, rank=0)),
        r"sampler \(DistributedSampler\) is set by the script",
    ),
    "dataset": (lambda: DataLoader(Told()), r"data set \(Told\) is set by the script"),
    "inner": (lambda: DataLoader(Subset(Told(), [0, 1])), r"data set \(Told\)"),
    "elastic": (
        lambda: DataLoader(Told(), batch_sampler=ElasticSampler(4, 2)),
        r"data set \(Told\) is set by the script",
    ),
}


@pytest.mark.parametrize("case", OBSTACLES)
def test_what_would_differ_is_not_read_ahead_and_the_reason_is_said(case, caplog):
    make, why = OBSTACLES[case]
    with caplog.at_level(logging.WARNING):
        loop = Loop(make(), epochs=3, high=100)
    (message,) = caplog.messages
    assert re.search(why, message)
    loop.epoch()
    assert not loop.queue and not loop.ahead.holds_next


def test_who_does_not_ask_for_it_is_not_warned(caplog):
    for epochs in (None, 1):
        ReadAhead(iter(data()), epochs=epochs)
    ReadAhead(sampled(), epochs=5)
    assert caplog.messages == []


@pytest.mark.parametrize("epochs", [0, -1, 1.5, True, "3"])
def test_impossible_numbers_of_epochs_are_refused(epochs):
    with pytest.raises(ConfigError, match=f"epochs={epochs!r}: use the number"):
        ReadAhead([], epochs=epochs)


def test_the_order_of_a_shuffled_epoch_does_not_depend_on_when_it_is_read():
    def orders(epochs, meanwhile):
        torch.manual_seed(9)
        loop = Loop(DataLoader(torch.arange(12), batch_size=2, shuffle=True), epochs=epochs)
        got = []
        for _ in range(3):
            got.append(loop.epoch())
            meanwhile()
        return got

    expected = orders(None, lambda: None)
    assert orders(3, lambda: torch.rand(5)) == expected
    assert expected[0] != expected[1] != expected[2]
