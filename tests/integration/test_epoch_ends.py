"""Epochs follow each other without a stall, whichever is read next and wherever the loop leaves one."""

from __future__ import annotations

import threading

import pytest
import torch
from torch.utils.data import DataLoader

import edldist
from edldist.errors import LoaderClosedError
from edldist.sampling.sampler import ElasticSampler
from edldist.wire.memory import MemoryTransport
from tests import models
from tests.harness import local_job
from tests.integration.epochs import BATCH, SAMPLES, Noisy, ids, order, sampled, shuffled


@pytest.fixture
def job(memory_job):
    memory_job.teacher(batch_size=3)
    return memory_job


def test_labels_of_the_next_epoch_are_there_when_it_begins():
    """Labels that the gate holds back are asked for in the epoch before: the next one finds them."""
    with local_job(MemoryTransport()) as gated:
        models.GATE.set()
        gated.teacher("waits_at_gate", batch_size=8)
        # Watermarks that bound nothing: else how far is read depends on how soon labels come.
        bounds = {"low_watermark": 31, "high_watermark": 32}
        loader = gated.loader([{"id": torch.arange(4)}] * 5, inputs="id", epochs=2, **bounds)
        running = iter(loader)
        for _ in range(5):
            next(running)
        labelled = threading.Event()
        while loader.stats()["buffered"] < 5:
            labelled.wait(0.01)  # the loop is still at the last batch of the first epoch
        models.GATE.clear()  # from here on nothing is labelled
        try:
            assert list(running) == []
            assert len(list(loader)) == 5
        finally:
            models.GATE.set()
        assert loader.stats()["discarded"] == 0


def test_no_batch_is_labelled_beyond_the_last_epoch(job):
    loader = job.loader([{"id": torch.arange(4)}] * 5, inputs="id", epochs=2, task_size=4)
    assert [len(list(loader)) for _ in range(2)] == [5, 5]
    stats = loader.stats()
    assert (stats["done"], stats["open"], stats["discarded"]) == (10, 0, 0)


@pytest.mark.parametrize("make", [sampled, shuffled, lambda: [{"id": torch.arange(4)}] * 6])
def test_nothing_comes_behind_the_last_epoch(job, make, caplog):
    """A script that is killed behind its last step and restored does not train an epoch too many."""
    loader = job.loader(make(), inputs="id", epochs=2)
    assert [len(list(loader)) for _ in range(4)] == [6, 6, 0, 0]
    assert (loader.epochs, loader.epoch) == (2, 2)
    state, ranks = loader.state_dict(), loader.rank_state_dict()
    restored = job.loader(make(), inputs="id", epochs=2)
    restored.load_state_dict(state)
    restored.load_rank_state_dict(ranks)
    assert list(restored) == [] and restored.stats()["samples"] == 0
    assert caplog.text.count("behind epochs=2, as a run is that was restored") == 2, "each says so once"
    longer = job.loader(make(), inputs="id", epochs=3)
    longer.load_state_dict(state)
    longer.load_rank_state_dict(ranks)
    assert [len(list(longer)) for _ in range(2)] == [6, 0]


@pytest.mark.parametrize("make", [sampled, shuffled])
def test_a_last_epoch_that_is_left_early_is_the_last_all_the_same(job, make):
    loader = job.loader(make(), inputs="id", epochs=1)
    next(iter(loader))
    assert (list(loader), loader.epoch) == ([], 1)
    loader.set_epoch(0)
    assert len(list(loader)) == 6


def test_another_epoch_than_was_read_ahead_drops_it_and_counts_it(job):
    data = sampled()
    loader = job.loader(data, inputs="id", epochs=9)
    assert ids(loader) == order(0)
    ahead = loader.stats()["open"]
    assert ahead > 0
    data.batch_sampler.set_epoch(5)
    assert ids(loader) == order(5)
    assert loader.stats()["discarded"] == ahead


def test_a_restore_between_two_epochs_drops_what_was_ahead(job):
    loader = job.loader(sampled(), inputs="id", epochs=9)
    state = loader.state_dict()
    ids(loader)
    loader.load_state_dict(state)
    assert loader.stats()["discarded"] > 0
    assert loader.stats()["open"] == 0
    assert ids(loader) == order(0)
    assert ids(loader) == order(1)


@pytest.mark.parametrize("left_at", range(1, 7))
def test_leaving_early_begins_the_next_epoch_at_its_start(job, left_at):
    loader = job.loader(sampled(), inputs="id", epochs=9, high_watermark=4)
    for number, _ in enumerate(loader, 1):
        if number == left_at:
            break
    assert ids(loader) == order(1)
    assert ids(loader) == order(2)
    assert loader.stats()["samples"] == left_at * BATCH + 2 * SAMPLES


def _counted(loader, epochs: int, begin) -> list[list[int]]:
    """The ids that a loop gets which counts batches, and never asks for one past the last."""
    got = []
    for epoch in range(epochs):
        begin(loader, epoch)
        running = iter(loader)
        for _ in range(len(loader)):
            batch, _ = next(running)
            got.append(batch["id"].tolist())
    return got


@pytest.mark.parametrize("begin", [lambda loader, epoch: None, edldist.DistillLoader.set_epoch])
@pytest.mark.parametrize("make", [sampled, shuffled])
def test_a_loop_that_counts_batches_keeps_what_is_ahead_and_misses_none(job, make, begin):
    torch.manual_seed(3)
    counting = job.loader(make(), inputs="id", epochs=3, high_watermark=4)
    got = _counted(counting, 3, begin)
    assert len(got) == 18
    torch.manual_seed(3)
    plain = job.loader(make(), inputs="id")
    assert got == [each for _ in range(3) for each in ids(plain)]
    assert counting.stats()["discarded"] == 0


def test_a_loop_that_is_left_at_its_last_batch_was_not_left_early(job):
    loader = job.loader(sampled(), inputs="id", epochs=2)
    for number, _ in enumerate(loader, 1):
        if number == 6:
            break
    assert (loader.epoch, len(loader), loader.stats()["discarded"]) == (1, 6, 0)
    assert ids(loader) == order(1)


@pytest.mark.parametrize("make", [sampled, shuffled])
def test_an_epoch_that_is_named_is_begun_at_its_start_or_resumed_inside(job, make):
    torch.manual_seed(3)
    whole = job.loader(make(), inputs="id")
    epochs = [ids(whole) for _ in range(4)]
    torch.manual_seed(3)
    loader = job.loader(make(), inputs="id", epochs=4)
    running = iter(loader)
    next(running), next(running)
    assert loader.batches_per_epoch == 6
    loader.set_epoch(0)
    with pytest.raises(LoaderClosedError, match="another iteration"):
        next(running)
    assert ids(loader) == epochs[0][2:]
    loader.set_epoch(3)
    assert (loader.epoch, len(loader), loader.batches_per_epoch) == (3, 6, 6)
    assert ids(loader) == epochs[3]
    unstarted = iter(loader)
    loader.set_epoch(1)
    assert [batch["id"].tolist() for batch, _ in unstarted] == epochs[1]
    for wrong in (-1, 1.0, True, None):
        with pytest.raises(edldist.errors.ConfigError, match="set_epoch"):
            loader.set_epoch(wrong)


def test_a_second_iteration_in_mid_epoch_ends_the_first_and_one_between_epochs_keeps_what_is_ahead(job):
    loader = job.loader(sampled(), inputs="id", epochs=9)
    assert ids(loader) == order(0)
    unstarted = iter(loader)
    running = iter(loader)
    next(running)
    assert loader.stats()["discarded"] == 0
    with pytest.raises(LoaderClosedError, match="another iteration"):
        next(unstarted)
    assert ids(loader) == order(2)
    assert loader.stats()["discarded"] > 0
    with pytest.raises(LoaderClosedError, match="another iteration"):
        next(running)


def test_an_error_while_reading_ahead_comes_in_the_next_epoch_behind_its_batches(job):
    class Fails:
        rounds = 0

        def __iter__(self):
            self.rounds += 1
            for number in range(5):
                if self.rounds == 2 and number == 3:
                    raise FileNotFoundError("shard 3 is gone")
                yield {"id": torch.arange(4) + number}

    loader = job.loader(Fails(), inputs="id", epochs=3)
    assert len(ids(loader)) == 5
    got = []
    with pytest.raises(FileNotFoundError, match="shard 3"):
        for batch, _ in loader:
            got.append(batch)
    assert len(got) == 3
    assert len(ids(loader)) == 5


def test_inputs_that_are_wrong_in_the_next_epoch_say_so_there(job):
    class Changes:
        rounds = 0

        def __iter__(self):
            self.rounds += 1
            return iter([{("id" if self.rounds == 1 else "other"): torch.arange(4)}])

    loader = job.loader(Changes(), inputs="id", epochs=2)
    assert len(ids(loader)) == 1
    with pytest.raises(edldist.errors.InputError, match="'other'"):
        next(iter(loader))


def test_a_generator_ends_as_it_did(job):
    loader = job.loader(({"id": torch.arange(4)} for _ in range(5)), inputs="id", epochs=3)
    assert [len(list(loader)) for _ in range(3)] == [5, 0, 0]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("persistent", [False, True])
def test_worker_processes_begin_with_the_next_epoch_and_draw_the_same(job, persistent):
    def run(epochs):
        torch.manual_seed(4)
        data = DataLoader(
            Noisy(),
            batch_sampler=ElasticSampler(SAMPLES, BATCH, seed=2),
            num_workers=2,
            persistent_workers=persistent,
        )
        loader = job.loader(data, inputs="id", epochs=epochs)
        seen = []
        for epoch in range(3):
            got = [(batch["id"].tolist(), batch["x"].tolist(), torch.rand(1).item()) for batch, _ in loader]
            assert [entry[0] for entry in got] == order(epoch)
            seen.append(got)
        return seen

    assert run(None) == run(3)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_persistent_workers_survive_a_dropped_epoch(job):
    sampler = ElasticSampler(SAMPLES, BATCH, seed=2)
    data = DataLoader(Noisy(), batch_sampler=sampler, num_workers=2, persistent_workers=True)
    loader = job.loader(data, inputs="id", epochs=9)
    assert ids(loader) == order(0)
    sampler.set_epoch(4)
    assert ids(loader) == order(4)
    for number, _ in enumerate(loader, 1):
        if number == 6:
            break
    assert ids(loader) == order(6)


def test_closing_between_two_epochs_ends_it(job):
    loader = job.loader(sampled(), inputs="id", epochs=9)
    ids(loader)
    loader.close()
    with pytest.raises(LoaderClosedError, match="closed"):
        iter(loader)
    assert loader.closed


def test_several_loaders_do_not_disturb_each_other(job):
    def run(epochs):
        torch.manual_seed(6)
        loaders = [job.loader(make(), inputs="id", epochs=epochs) for make in (sampled, shuffled)]
        return [
            [(a["x"].tolist(), b["x"].tolist()) for (a, _), (b, _) in zip(*loaders, strict=True)]
            for _ in range(3)
        ]

    assert run(3) == run(None)


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_uneven_parts_weigh_and_count_as_before(job, world_size):
    def run(epochs, rank):
        sampler = ElasticSampler(11, 5, rank=rank, world_size=world_size)
        data = DataLoader([{"id": n} for n in range(11)], batch_sampler=sampler)
        loader = job.loader(data, inputs="id", epochs=epochs)
        steps = [(batch["id"].tolist(), loader.loss_weight) for _ in range(3) for batch, _ in loader]
        return steps, loader.stats()["samples"]

    ranks = [run(3, rank) for rank in range(world_size)]
    assert ranks == [run(None, rank) for rank in range(world_size)]
    assert sum(samples for _, samples in ranks) == 33


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"device": "cuda:99"}, "device='cuda:99'"),
        ({"pin_memory": 3}, "pin_memory=3"),
        ({"epochs": 0}, "epochs=0"),
    ],
)
def test_impossible_options_are_refused_before_anything_starts(job, options, what):
    with pytest.raises(edldist.errors.ConfigError, match=what):
        job.loader([], **options)
