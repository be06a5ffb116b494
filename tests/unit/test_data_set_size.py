"""A position in the middle of an epoch is one in a data set of that size."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset

from edldist.errors import CheckpointError
from edldist.sampling.choice import position_of
from edldist.sampling.composition import data_set_size
from edldist.sampling.counted import CountedPosition


class Stream(IterableDataset):
    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self):
        return iter(range(self.n))

    def __len__(self) -> int:
        return self.n


class Unsized:
    def __getitem__(self, index: int) -> int:
        return index


class Wrapper:
    def __init__(self, loader) -> None:
        self.loader = loader

    def __iter__(self):
        return iter(self.loader)


@pytest.mark.parametrize(
    ("data_loader", "size"),
    [
        (DataLoader(range(7), batch_size=2), 7),
        (DataLoader(Subset(range(7), [0, 3])), 2),
        (Wrapper(DataLoader(torch.zeros(5))), 5),
        (DataLoader(Stream(7)), None),
        (DataLoader(Unsized(), sampler=range(3)), None),
        ([1, 2, 3], None),
    ],
)
def test_a_size_is_known_of_what_is_indexed(data_loader, size):
    assert data_set_size(data_loader) == size


def behind(data_loader, batches: int) -> dict:
    position = position_of(data_loader)
    assert isinstance(position, CountedPosition)
    source = position.start()
    for _ in range(batches):
        batch, mark = next(source)
        position.consume(mark, len(batch))
    if batches == len(data_loader):
        position.end_epoch()
    return json.loads(json.dumps(position.state_dict()))


@pytest.mark.parametrize("sizes", [(32, 16), (16, 32)])
def test_another_size_is_refused_in_the_middle_of_an_epoch(sizes):
    before, now = (DataLoader(range(n), batch_size=4) for n in sizes)
    with pytest.raises(
        CheckpointError, match=rf"behind 8 samples.*set of {sizes[0]} samples.*has {sizes[1]}:"
    ):
        position_of(now).load_state_dict(behind(before, 2))


def test_another_size_is_refused_by_each_rank_for_itself(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    position = position_of(DataLoader(range(32), batch_size=4))
    batch, mark = next(position.start())
    position.consume(mark, len(batch))
    resumed = position_of(DataLoader(range(16), batch_size=4))
    resumed.load_state_dict(position.state_dict())
    with pytest.raises(CheckpointError, match="set of 32 samples.*has 16:"):
        resumed.load_rank_state_dict(position.rank_state_dict())


@pytest.mark.parametrize("now", [DataLoader(range(16), batch_size=4), DataLoader(Stream(9)), [[1]]])
def test_a_new_epoch_may_be_one_of_another_data_set(now):
    position = position_of(now)
    position.load_state_dict(behind(DataLoader(range(8), batch_size=4), 2))
    assert position.epoch == 1 and len(list(position.start())) == len(now)


def test_the_same_size_goes_on():
    position = position_of(DataLoader(range(16), batch_size=4))
    position.load_state_dict(behind(DataLoader(range(16), batch_size=4), 3))
    assert [batch.tolist() for batch, _ in position.start()] == [[12, 13, 14, 15]]
