"""A store beside an augmentation that no seed can make again: refused, or said."""

from __future__ import annotations

import logging

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

import edldist
from edldist import ElasticSampler
from edldist.errors import StoreError
from tests.harness import LocalJob

pytestmark = pytest.mark.timeout(240)

SAMPLES = 48


class Augmented(Dataset):
    """Samples of which each gets noise: of nobody's seed, of its own, or of its own and the epoch's."""

    def __init__(self, how: str = "unseeded") -> None:
        self.how, self.epoch = how, 0

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        generator = None
        if self.how != "unseeded":
            variant = self.epoch if self.how == "epoch" else 0
            generator = torch.Generator().manual_seed(edldist.augmentation_seed(1, index, variant))
        return torch.full((4,), float(index)) + 0.1 * torch.randn(4, generator=generator)


def flipped_at_times(samples: list[torch.Tensor]) -> torch.Tensor:
    """Each one in three batches is the other way round."""
    batch = torch.stack(samples)
    return batch.flip(1) if torch.rand(()) < 0.4 else batch


class Stream(IterableDataset):
    """The same numbers in each epoch, or others."""

    def __init__(self, drawn: bool) -> None:
        self.drawn = drawn

    def __iter__(self):
        for index in range(SAMPLES):
            yield torch.full((4,), float(index)) + (torch.randn(4) if self.drawn else torch.arange(4.0))


def loader_of(data: Dataset, **options) -> DataLoader:
    return DataLoader(data, batch_sampler=ElasticSampler(SAMPLES, 8), **options)


@pytest.fixture
def teacher(memory_job: LocalJob) -> None:
    memory_job.teacher("Linear")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("epochs", [None, 3])
def test_an_augmentation_without_a_seed_is_refused_before_the_second_epoch(
    memory_job: LocalJob, teacher, tmp_path, epochs, workers
) -> None:
    data_loader = loader_of(Augmented(), num_workers=workers)
    loader = memory_job.loader(data_loader, store=tmp_path, epochs=epochs)
    assert len(list(loader)) == SAMPLES // 8
    saved, trained_on = loader.state_dict(), []
    with pytest.raises(StoreError, match=r"sample 0 of the data set \(Augmented\) .*not seeded.*store=False"):
        for pair in loader:
            trained_on.append(pair)
    # What was read ahead of that epoch before it was known what is kept may still come.
    assert len(trained_on) < SAMPLES // 8 if epochs else trained_on == []

    # Who goes on from there meets it again at once; without a store the run goes on.
    again = memory_job.loader(loader_of(Augmented()), store=tmp_path)
    again.load_state_dict(saved)
    with pytest.raises(StoreError, match="not seeded"):
        next(iter(again))
    without = memory_job.loader(loader_of(Augmented()), store=False)
    without.load_state_dict(saved)
    assert (without.epoch, len(list(without))) == (1, SAMPLES // 8)


def test_what_a_collate_function_draws_is_found_out(memory_job: LocalJob, teacher, tmp_path) -> None:
    data_loader = loader_of(Augmented("seeded"), collate_fn=flipped_at_times)
    loader = memory_job.loader(data_loader, store=tmp_path)
    with pytest.raises(StoreError, match=r"data set \(Augmented\) does not look the same"):
        for _ in range(20):
            list(loader)
    assert loader.epoch <= 4


def test_a_loops_own_draws_are_the_same_whether_samples_were_read_again(
    memory_job: LocalJob, teacher, tmp_path
) -> None:
    drawn = []
    for store in (tmp_path, False):
        torch.manual_seed(5)
        data = Augmented("epoch")
        loader = memory_job.loader(loader_of(data), store=store)
        for epoch in range(3):
            data.epoch = epoch
            drawn.append([torch.randn(2).tolist() for _ in loader])
    assert drawn[:3] == drawn[3:]


@pytest.mark.parametrize("how", ["seeded", "epoch"])
def test_seeded_augmentations_are_not_refused(memory_job: LocalJob, teacher, tmp_path, how, caplog) -> None:
    data = Augmented(how)
    loader = memory_job.loader(loader_of(data), store=tmp_path)
    with caplog.at_level(logging.WARNING):
        for data.epoch in (0, 1, 2, 0):
            assert len(list(loader)) == SAMPLES // 8
    stats = loader.stats()
    assert stats["store_hits"] == SAMPLES * (3 if how == "seeded" else 1)
    said = [record.getMessage() for record in caplog.records if "found none" in record.getMessage()]
    # An epoch of variants of its own found nothing: said once, and counted each time.
    assert (len(said), stats.get("store_fruitless_epochs", 0)) == ((0, 0) if how == "seeded" else (1, 2))


@pytest.mark.parametrize("drawn", [True, False])
def test_a_stream_that_finds_nothing_is_said_once_in_words(
    memory_job: LocalJob, teacher, tmp_path, drawn, caplog, monkeypatch
) -> None:
    remarks: list[str] = []
    monkeypatch.setattr("edldist.student.loop.seeding.remark", remarks.append)
    loader = memory_job.loader(DataLoader(Stream(drawn), batch_size=8), store=tmp_path)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            assert len(list(loader)) == SAMPLES // 8
    assert loader.stats().get("store_fruitless_epochs", 0) == (3 if drawn else 0)
    assert len(remarks) == drawn
    for text in remarks:
        assert "epoch 1 found none of its 48 samples" in text and "store=False" in text
        assert text in caplog.text


def test_samples_that_cannot_be_read_again_end_nothing(
    memory_job: LocalJob, teacher, tmp_path, monkeypatch
) -> None:
    def broken(_) -> None:
        raise OSError("the disk of the data is gone")

    monkeypatch.setattr("edldist.student.loop.seeding.reread", broken)
    loader = memory_job.loader(loader_of(Augmented()), store=tmp_path)
    for _ in range(3):
        assert len(list(loader)) == SAMPLES // 8
    assert loader.stats()["store_fruitless_epochs"] == 2


def test_samples_with_ids_are_looked_at_by_their_witness_alone(
    memory_job: LocalJob, teacher, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("edldist.student.loop.seeding.reread", None)  # would raise
    batches = [{"x": torch.full((8, 4), float(at)), "id": torch.arange(8) + 8 * at} for at in range(3)]
    ids = edldist.SampleIds("id", data="numbers")
    loader = memory_job.loader(batches, "x", store=tmp_path, ids=ids)
    for _ in range(2):
        assert len(list(loader)) == 3
    assert loader.stats()["store_hits"] == 24
