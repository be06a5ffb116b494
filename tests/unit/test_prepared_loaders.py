"""Data loaders that a library wrapped: whether they have a state, which epoch they read, what they draw."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from edldist.errors import CheckpointError
from edldist.sampling.choice import position_of
from edldist.sampling.composition import is_stateful, reads_together
from edldist.sampling.sampler import ElasticSampler


class Wrapper:
    """Has the methods of a state whatever it wraps, as Accelerate's data loaders have."""

    def __init__(self, base_dataloader) -> None:
        self.base_dataloader = base_dataloader
        self.asked = 0

    def __iter__(self):
        return iter(self.base_dataloader)

    def state_dict(self):
        self.asked += 1
        return self.base_dataloader.state_dict()

    def load_state_dict(self, state) -> None:
        self.base_dataloader.load_state_dict(state)


class Counting(Wrapper):
    """Counts how often it was run through, and sets that as the epoch when it is opened."""

    iteration = 0

    def __iter__(self):
        self.set_epoch(self.iteration)
        yield from self.base_dataloader
        self.iteration += 1

    def set_epoch(self, epoch: int) -> None:
        self.iteration = epoch
        self.base_dataloader.batch_sampler.set_epoch(epoch)


class Epochs:
    """A batch sampler whose order is that of the epoch that was set."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):
        return iter([[100 * self.epoch + number] for number in range(4)])

    def __len__(self) -> int:
        return 4


class Numbers:
    def __getitem__(self, number: int) -> int:
        return number

    def __len__(self) -> int:
        return 1000


class Stateful(list):
    asked = 0

    def state_dict(self):
        self.asked += 1
        return {}

    def load_state_dict(self, state) -> None:
        pass


class WithOwnState(Wrapper):
    def state_dict(self):
        return {"place": 3}


class Unwilling(Wrapper):
    def state_dict(self):
        raise NotImplementedError


def read(position, batches: int | None = None) -> list:
    got = []
    for batch, mark in position.start():
        got.append(torch.as_tensor(batch).tolist())
        position.consume(mark, len(got[-1]))
        if len(got) == batches:
            return got
    position.end_epoch()
    return got


@pytest.mark.parametrize(
    ("loader", "stateful"),
    [
        (Wrapper(DataLoader([1])), False),
        (Unwilling([1]), False),
        (Wrapper(Wrapper([1])), False),
        (Wrapper(Wrapper(Stateful())), True),
        (WithOwnState([1]), True),
        (Stateful(), True),
        ([1], False),
    ],
)
def test_a_wrapper_has_a_state_only_if_it_can_tell_it(loader, stateful: bool):
    assert is_stateful(loader) == stateful


def test_who_really_has_a_state_is_not_asked_for_it_because_that_may_start_it():
    loader = Stateful()
    assert is_stateful(Wrapper(loader)) and loader.asked == 0


def test_a_wrapper_without_a_state_is_counted_and_skipped():
    first = position_of(Wrapper(DataLoader(range(6), batch_size=2)))
    read(first, 2)
    again = position_of(Wrapper(DataLoader(range(6), batch_size=2)))
    again.load_state_dict(first.state_dict())
    assert read(again) == [[4, 5]]


def test_one_that_counts_epochs_by_itself_reads_the_one_where_the_loop_is():
    loader = Counting(DataLoader(Numbers(), batch_sampler=Epochs()))
    position = position_of(loader)
    assert [read(position)[0], read(position, 1)[0], read(position, 2)[0]] == [[0], [100], [200]]
    again = position_of(Counting(DataLoader(Numbers(), batch_sampler=Epochs())))
    again.load_state_dict(position.state_dict())
    assert read(again) == [[202], [203]]


def test_one_that_counts_epochs_by_itself_leaves_an_elastic_sampler_where_it_is():
    def make():
        return ElasticSampler(1000, 100, shuffle=True)

    position = position_of(Counting(DataLoader(Numbers(), batch_sampler=make())))
    whole = [read(position), read(position)]
    assert whole[0] != whole[1]
    position = position_of(Counting(DataLoader(Numbers(), batch_sampler=make())))
    read(position)
    read(position, 3)
    again = position_of(Counting(DataLoader(Numbers(), batch_sampler=make())))
    again.load_state_dict(position.state_dict())
    assert read(again) == whole[1][3:]


def shuffled() -> DataLoader:
    return DataLoader(range(12), batch_size=2, shuffle=True, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("batches", [0, 2], ids=["between epochs", "in mid-epoch"])
@pytest.mark.parametrize("world", [1, 2])
def test_an_order_drawn_from_a_generator_of_its_own_goes_on(monkeypatch, batches: int, world: int):
    monkeypatch.setenv("WORLD_SIZE", str(world))
    position = position_of(shuffled())
    whole = [read(position), read(position)]
    position = position_of(shuffled())
    read(position)
    if batches:
        read(position, batches)
    again = position_of(shuffled())
    again.load_state_dict(position.state_dict())
    again.load_rank_state_dict(position.rank_state_dict())
    assert again.state_dict() is not None and read(again) == whole[1][batches:]


def test_the_states_of_generators_that_are_gone_are_refused():
    position = position_of(shuffled())
    read(position, 1)
    with pytest.raises(CheckpointError, match=r"states of 1 random generator.* has 0 now"):
        position_of(DataLoader(range(12), batch_size=2)).load_state_dict(position.state_dict())


def test_accelerates_dispatcher_is_known_to_do_collectives():
    data_loader = pytest.importorskip("accelerate.data_loader")
    assert issubclass(data_loader.DataLoaderDispatcher, object)
    kind = type("Mine", (data_loader.DataLoaderDispatcher,), {"__init__": lambda self: None, "dataset": None})
    assert reads_together(Wrapper(kind()))
    assert not reads_together(Wrapper(DataLoader([1])))
