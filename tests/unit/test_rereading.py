"""Some samples of a data set are read again as the data loader reads them, and its position stays."""

from __future__ import annotations

import os

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    get_worker_info,
)

from edldist import ElasticSampler
from edldist.sampling.rereading import reread


class Told(Dataset):
    """Counts how often each sample was read, here."""

    def __init__(self, samples: int = 40, noise: bool = False) -> None:
        self.samples, self.noise, self.read = samples, noise, []

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> dict:
        self.read.append(index)
        noise = torch.randn(()) if self.noise else torch.zeros(())
        return {"index": index, "noise": noise, "pid": os.getpid(), "worker": get_worker_info() is not None}


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(10))


class Own(Sampler):
    def __iter__(self):
        raise AssertionError("a sampler is asked for nothing")

    def __len__(self) -> int:
        return 40


@pytest.mark.parametrize("noise", [False, True])
def test_samples_are_spread_over_the_data_set_and_read_each_time(noise) -> None:
    data = Told(noise=noise)
    again = reread(DataLoader(data, batch_size=8, shuffle=True))
    assert again is not None and again.indices == [0, 10, 20, 30] and again.data_set == "Told"
    assert data.read == [0, 10, 20, 30] * 4
    assert [batch["index"].tolist() for batch in again.batches] == [[0, 10, 20, 30]] * 4
    alike = [torch.equal(batch["noise"], again.batches[0]["noise"]) for batch in again.batches[1:]]
    assert alike == [not noise] * 3


def test_where_workers_read_a_worker_reads() -> None:
    again = reread(DataLoader(Told(), batch_size=8, num_workers=2), times=2)
    assert again is not None
    pids = {pid for batch in again.batches for pid in batch["pid"].tolist()}
    assert len(pids) == 1 and os.getpid() not in pids


class Wrapped:
    def __init__(self, loader) -> None:
        self.loader = loader

    def __iter__(self):
        return iter(self.loader)


@pytest.mark.parametrize(
    ("loader", "indices"),
    [
        (lambda data: DataLoader(data, batch_sampler=ElasticSampler(20, 4)), [0, 5, 10, 15]),
        (lambda data: DataLoader(data, sampler=SubsetRandomSampler([7, 9, 11])), [7, 9, 11]),
        (lambda data: DataLoader(data, sampler=WeightedRandomSampler([0.0, 1.0, 0.0, 2.0], 9)), [1, 3]),
        (lambda data: DataLoader(data, sampler=DistributedSampler(data, 2, 0)), [0, 10, 20, 30]),
        (lambda data: DataLoader(data, batch_sampler=BatchSampler(SequentialSampler(data), 8, False)), None),
        (lambda data: Wrapped(DataLoader(data, batch_size=8)), None),
    ],
)
def test_indices_are_those_that_the_sampler_may_list(loader, indices) -> None:
    again = reread(loader(Told()))
    assert again is not None and again.indices == (indices or [0, 10, 20, 30])


def test_a_data_set_that_makes_whole_batches_is_asked_for_one() -> None:
    again = reread(DataLoader(Told(), batch_size=None, shuffle=True))
    assert again is not None and again.indices == [0]
    assert [batch["index"] for batch in again.batches] == [0] * 4


@pytest.mark.parametrize(
    "loader",
    [
        lambda: DataLoader(Stream(), batch_size=2),
        lambda: DataLoader(Told(), batch_sampler=Own()),
        lambda: DataLoader(Told(), sampler=Own()),
        lambda: [{"x": torch.zeros(3)}],
        lambda: DataLoader(Told(0), sampler=SequentialSampler(Told(0))),
    ],
)
def test_what_nobody_knows_how_to_read_again_is_not_read(loader) -> None:
    assert reread(loader()) is None


def test_an_elastic_sampler_stays_where_it_is() -> None:
    sampler = ElasticSampler(40, 8)
    sampler.advance(16)
    reread(DataLoader(Told(), batch_sampler=sampler))
    assert (sampler.epoch, sampler.samples) == (0, 16)
