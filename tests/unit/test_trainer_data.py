"""A DistillLoader in the place of a Trainer's data loader: what a batch carries, and what is skipped."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from edldist.errors import InputError
from edldist.integrations.trainer_data import SOFT, TrainerData
from edldist.sampling.sampler import ElasticSampler
from edldist.wire.memory import MemoryTransport
from tests.harness import local_job

pytestmark = pytest.mark.timeout(240)
SAMPLES = 10


@pytest.fixture
def job():
    with local_job(MemoryTransport()) as made:
        made.teacher()
        yield made


def made(job, **rank) -> TrainerData:
    samples = [{"id": torch.tensor(number), "labels": torch.tensor(number)} for number in range(SAMPLES)]
    sampler = ElasticSampler(SAMPLES, 4, shuffle=False, **rank)
    loader = job.loader(DataLoader(samples, batch_sampler=sampler), lambda batch: {"id": batch["id"]})
    return TrainerData(loader, sampler.batches_per_epoch, SAMPLES)


def test_a_batch_carries_what_came_with_it(job):
    data = made(job)
    assert len(data) == 3 and len(data.dataset) == SAMPLES
    for epoch in range(2):
        data.set_epoch(epoch)
        batches = list(data)
        assert [batch["id"].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        for batch in batches:
            assert batch[SOFT]["weight"] == 1.0
            assert batch[SOFT]["labels"]["logits"][:, 0].tolist() == batch["id"].tolist()


def test_batches_that_were_consumed_are_skipped_without_being_read(job):
    whole = made(job)
    batches = iter(whole)
    next(batches), next(batches)
    rest = made(job)
    rest.loader.load_state_dict(whole.loader.state_dict())
    rest.skip(2)
    got = list(rest)
    assert got[:2] == [None, None] and [batch["id"].tolist() for batch in got[2:]] == [[8, 9]]
    assert rest.loader.stats()["batches"] == 1
    assert [batch["id"].tolist() for batch in rest][0] == [0, 1, 2, 3], "an epoch later nothing is skipped"


def test_a_batch_that_is_padding_only_has_no_labels_that_count(job, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    last = list(made(job, rank=3, world_size=4))[-1]
    assert last[SOFT]["weight"] == 0.0 and last["labels"].tolist() == [-100]


def test_a_batch_that_is_no_mapping_is_refused(job):
    loader = job.loader(DataLoader(torch.arange(4)), lambda batch: {"id": batch})
    with pytest.raises(InputError, match="made a Tensor of a batch"):
        list(TrainerData(loader, None, None))


def test_without_a_length_there_is_none(job):
    with pytest.raises(TypeError):
        len(TrainerData(made(job).loader, None, None))
