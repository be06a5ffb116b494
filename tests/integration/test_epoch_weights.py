"""Nobody could tell from the weights whether epochs were read ahead, or a run restored."""

from __future__ import annotations

import copy
import random
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from edldist.checkpoint.rng import capture_rng, restore_rng
from edldist.sampling.sampler import ElasticSampler
from tests.integration.epochs import EPOCHS, SAMPLES, STEPS, sampled, shuffled


@pytest.fixture
def job(memory_job):
    memory_job.teacher(batch_size=3)
    return memory_job


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
