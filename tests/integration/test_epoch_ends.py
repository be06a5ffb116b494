"""Epochs follow each other without a stall, and nobody could tell from the weights."""

from __future__ import annotations

import copy
import random
import threading
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import edldist
from edldist.checkpoint.rng import capture_rng, restore_rng
from edldist.errors import LoaderClosedError
from edldist.sampling.sampler import ElasticSampler
from edldist.student.structure import mapped
from edldist.student.to_device import Copies
from edldist.wire.memory import MemoryTransport
from tests import models
from tests.harness import local_job

SAMPLES = 24
BATCH = 4
EPOCHS = 3
STEPS = EPOCHS * SAMPLES // BATCH


@pytest.fixture
def job():
    with local_job(MemoryTransport()) as made:
        made.teacher(batch_size=3)
        yield made
        assert made.errors == []


class Noisy(Dataset):
    """Ids whose features are augmented with every global generator, in whatever process reads them."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        noise = [torch.randn(1).item(), random.gauss(0, 1), np.random.normal()]
        return {"id": torch.tensor(index), "x": torch.tensor(noise) + index / SAMPLES}


def sampled():
    return DataLoader(Noisy(), batch_sampler=ElasticSampler(SAMPLES, BATCH, seed=2))


def shuffled():
    return DataLoader(Noisy(), batch_size=BATCH, shuffle=True)


State = namedtuple("State", "model optimizer loader rng")


class Training:
    """A loop that draws dropout masks, and numbers of Python's and numpy's generators, in every step."""

    def __init__(self, job, make, epochs: int | None) -> None:
        torch.manual_seed(11)
        random.seed(12)
        np.random.seed(13)
        self.loader = job.loader(make(), inputs="id", epochs=epochs, high_watermark=4)
        self.model = nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.5), nn.Linear(16, 2))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)
        self.saved: list[State] = []  # after each step, and before each epoch
        self.ids: list[list[int]] = []

    def save(self) -> None:
        parts = self.model.state_dict(), self.optimizer.state_dict(), self.loader.state_dict()
        self.saved.append(State(*copy.deepcopy(parts), capture_rng()))

    def restore(self, state: State) -> None:
        self.model.load_state_dict(state.model)
        self.optimizer.load_state_dict(state.optimizer)
        self.loader.load_state_dict(state.loader)
        restore_rng(state.rng)

    def run(self) -> Training:
        for _ in range(self.loader.epoch, EPOCHS):
            self.save()
            for batch, labels in self.loader:
                scale = 1 + 0.01 * random.gauss(0, 1) + 0.01 * np.random.normal()
                loss = scale * (self.model(batch["x"]) - labels["logits"].float()).square().mean()
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.ids.append(batch["id"].tolist())
                self.save()
        return self

    @property
    def weights(self) -> torch.Tensor:
        return torch.cat([parameter.detach().reshape(-1) for parameter in self.model.parameters()])


@pytest.mark.parametrize("make", [sampled, shuffled])
def test_weights_are_those_of_a_run_that_does_not_read_ahead_bit_for_bit(job, make):
    ahead = Training(job, make, epochs=EPOCHS).run()
    plain = Training(job, make, epochs=None).run()
    assert ahead.ids == plain.ids
    assert torch.equal(ahead.weights, plain.weights)
    assert [state.loader for state in ahead.saved] == [state.loader for state in plain.saved]
    assert [state.rng for state in ahead.saved] == [state.rng for state in plain.saved]
    for epoch in range(EPOCHS):
        assert sorted(sum(ahead.ids[epoch * 6 : epoch * 6 + 6], [])) == list(range(SAMPLES))
    assert ahead.loader.stats()["discarded"] == 0


@pytest.mark.parametrize("make", [sampled, shuffled])
@pytest.mark.parametrize("epochs", [EPOCHS, None])
def test_a_restore_from_any_step_ends_in_the_same_weights_bit_for_bit(job, make, epochs):
    whole = Training(job, make, epochs=epochs).run()
    assert len(whole.saved) == STEPS + EPOCHS
    for state in whole.saved:
        resumed = Training(job, make, epochs=epochs)
        torch.rand(3)
        resumed.restore(state)
        resumed.run()
        assert resumed.ids == whole.ids[STEPS - len(resumed.ids) :]
        assert torch.equal(resumed.weights, whole.weights)
        resumed.loader.close()


def test_the_state_is_what_was_consumed_while_the_next_epoch_is_ahead(job):
    reads = []

    class Counted(Dataset):
        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int) -> dict[str, int]:
            reads.append(index)
            return {"id": index}

    sampler = ElasticSampler(12, 2)
    loader = job.loader(
        DataLoader(Counted(), batch_sampler=sampler), inputs="id", epochs=2, deterministic=True
    )
    seen = []
    for number, _ in enumerate(loader, 1):
        seen.append((loader.epoch, sampler.samples, len(loader)))
        assert loader.state_dict()["sampler"]["samples"] == 2 * number
    assert seen == [(0, 2 * n, 6 - n) for n in range(1, 7)]
    assert len(reads) > 12
    assert (loader.epoch, sampler.samples, len(loader)) == (1, 0, 6)
    assert loader.state_dict()["sampler"] | {"epoch": 0} == ElasticSampler(12, 2).state_dict()
    assert len(list(loader)) == 6
    assert len(reads) == 24


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


def ids(loader) -> list[list[int]]:
    return [batch["id"].tolist() for batch, _ in loader]


def order(epoch: int) -> list[list[int]]:
    sampler = ElasticSampler(SAMPLES, BATCH, seed=2)
    sampler.set_epoch(epoch)
    return list(sampler)


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


class OneAhead:
    """Stands for a device: copies by marking, and writes down the order of what happens."""

    ahead = True

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []

    def allocate(self, shape, dtype):
        return torch.full(tuple(shape), 0, dtype=dtype)

    def begin(self, value):
        number = -1 if value is None else int(value[0]["id"][0])
        self.log.append(("begin", number))
        return Copies(mapped(value, torch.clone), [], number)

    def end(self, copies):
        self.log.append(("end", copies.done))
        return copies.value


@pytest.fixture
def device(monkeypatch):
    """The device of all loaders of a test."""
    copier = OneAhead()
    monkeypatch.setattr("edldist.student.loader.copier_for", lambda device, pin_memory: copier)
    return copier


def numbered(count: int) -> list[dict[str, torch.Tensor]]:
    return [{"id": torch.tensor([number])} for number in range(count)]


@pytest.mark.parametrize("epochs", [None, 3])
def test_a_device_gets_every_batch_in_order_one_ahead_and_counts_what_was_consumed(job, device, epochs):
    loader = job.loader(numbered(8), inputs="id", epochs=epochs)
    for epoch in range(3):
        for number, (batch, labels) in enumerate(loader):
            assert batch["id"].tolist() == [number]
            assert labels["logits"].tolist() == [[number, 2 * number + 1]]
            place = {"epoch": epoch, "batches": number + 1, "samples": number + 1}
            assert loader.state_dict() == place | {"world_size": 1}
    assert [number for what, number in device.log if what == "end"] == 3 * list(range(8))
    begun = ended = 0
    for what, _ in device.log:
        begun, ended = begun + (what == "begin"), ended + (what == "end")
        assert ended <= begun <= ended + 1
    assert loader.stats()["discarded"] == 0


def test_a_batch_is_on_its_way_while_the_loop_works_on_the_one_before(job, device):
    loader = job.loader(numbered(6), inputs="id", epochs=2)
    running = iter(loader)
    next(running)
    labelled = threading.Event()
    while loader.stats()["buffered"] + len(loader._arrivals._transfer) < 5:
        labelled.wait(0.01)
    next(running)
    assert device.log[-1] == ("begin", 2)
    for _ in range(4):
        next(running)
    while loader.stats()["buffered"] + len(loader._arrivals._transfer) < 2:
        labelled.wait(0.01)
    assert list(running) == []
    assert next(iter(loader))[0]["id"].tolist() == [0]
    assert len([entry for entry in device.log if entry == ("begin", 0)]) == 2


@pytest.mark.parametrize("left_at", range(1, 6))
def test_leaving_early_forgets_what_was_on_its_way(job, device, left_at):
    loader = job.loader(numbered(6), inputs="id", epochs=5, high_watermark=4)
    for number, _ in enumerate(loader, 1):
        if number == left_at:
            break
    stats = loader.stats()
    assert (stats["open"], len(loader._arrivals._transfer)) == (0, 0)
    assert ids(loader) == ids(loader) == [[number] for number in range(6)]
    assert loader.stats()["batches"] == left_at + 12


def test_poison_behind_a_good_batch_is_raised_when_it_is_due(device):
    with local_job(MemoryTransport()) as own:
        own.teacher("raises_on_13")
        loader = own.loader([{"id": torch.tensor([n])} for n in (11, 12, 13)], inputs="id")
        got = []
        with pytest.raises(edldist.errors.PoisonTaskError):
            for batch, _ in loader:
                got.append(batch["id"].item())
        assert got == [11, 12]


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
