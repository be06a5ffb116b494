"""Ranks that read the same samples are told so, and no others."""

from __future__ import annotations

import logging

import pytest
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
)

from edldist.sampling.dealing import check_dealing, read_whole
from edldist.sampling.sampler import ElasticSampler

DATA = list(range(200))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(DATA)


class Prepared(DataLoader):
    """What a library made of a data loader: it may deal in its own ``__iter__``."""


class EveryOther(BatchSampler):
    """What Accelerate puts in the place of a batch sampler."""


def every_other() -> EveryOther:
    return EveryOther(range(200), 8, drop_last=False)


@pytest.mark.parametrize(
    "data_loader",
    [DataLoader(DATA, 8), DataLoader(DATA, 8, shuffle=True), DataLoader(DATA, None)],
    ids=["in order", "shuffled", "without batches"],
)
def test_a_plain_data_loader_is_read_whole(data_loader):
    assert read_whole(data_loader) == 200


@pytest.mark.parametrize(
    "data_loader",
    [
        DataLoader(DATA, batch_sampler=ElasticSampler(200, 8)),
        DataLoader(DATA, 8, sampler=DistributedSampler(DATA, num_replicas=2, rank=0)),
        DataLoader(DATA, 8, sampler=SubsetRandomSampler(range(0, 200, 2))),
        DataLoader(DATA, 8, sampler=range(0, 200, 2)),
        DataLoader(DATA, 8, sampler=RandomSampler(DATA, replacement=True)),
        DataLoader(DATA, 8, sampler=RandomSampler(DATA, num_samples=100)),
        DataLoader(DATA, batch_sampler=every_other()),
        Prepared(DATA, 8),
        DataLoader(Stream(), 8),
        [DATA],
        iter([DATA]),
    ],
    ids=lambda data_loader: type(data_loader).__name__,
)
def test_whatever_may_deal_in_a_way_of_its_own_is_believed(data_loader):
    assert read_whole(data_loader) is None


@pytest.mark.parametrize("rank, ranks, told", [(0, 2, True), (1, 2, False), (0, 1, False)])
def test_rank_0_of_several_says_what_to_use(rank, ranks, told, monkeypatch, caplog):
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    with caplog.at_level(logging.WARNING):
        check_dealing(DataLoader(DATA, 8, shuffle=True))
        check_dealing(DataLoader(DATA, batch_sampler=ElasticSampler(200, 8)))
    assert len(caplog.records) == told
    if told:
        said = caplog.records[0].getMessage()
        assert said.startswith("each of 2 ranks goes through all 200 samples of its data set")
        assert "batch_sampler=edldist.ElasticSampler(len(dataset), global_batch_size)" in said


@pytest.mark.parametrize(("processes", "alone"), [(None, False), (1, True), (2, False)])
def test_ranks_that_accelerate_takes_for_one_each_train_models_of_their_own(
    processes, alone, monkeypatch, caplog
):
    """Behind an ``ElasticSampler`` each has a share of the samples, and a model that sees no more of them."""
    state = pytest.importorskip("accelerate.state").PartialState
    monkeypatch.setattr(state, "_shared_state", {} if processes is None else {"num_processes": processes})
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with caplog.at_level(logging.WARNING):
        check_dealing(DataLoader(DATA, batch_sampler=ElasticSampler(200, 8)))
    assert len(caplog.records) == alone
    if alone:
        assert caplog.records[0].getMessage().startswith("2 ranks were started, and Accelerate takes each")
        assert "Accelerator(cpu=True)" in caplog.records[0].getMessage()
        check_dealing(DataLoader(DATA, 8))
        assert len(caplog.records) == 2, "that it is read whole comes of the same"


def test_accelerate_knows_its_processes_by_the_name_that_is_asked_for():
    state = pytest.importorskip("accelerate.state").PartialState
    assert "num_processes" in state._known_attrs


@pytest.mark.parametrize(("processes", "whole"), [(1, 200), (2, None)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_what_accelerate_prepared_for_one_process_is_not_dealt_out(processes, whole, shuffle):
    """As ``Accelerator()`` does on ranks without a GPU unless it is told ``cpu=True``."""
    prepare = pytest.importorskip("accelerate.data_loader").prepare_data_loader
    loader = DataLoader(DATA, 8, shuffle=shuffle)
    prepared = prepare(loader, num_processes=processes, process_index=0, put_on_device=False)
    assert read_whole(prepared) == whole
