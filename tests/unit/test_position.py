"""The position is what the loop consumed: never what was read ahead, and restored exactly."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.data import DataLoader

from edldist.errors import CheckpointError
from edldist.sampling.choice import position_of
from edldist.sampling.counted import CountedPosition
from edldist.sampling.sampled import SampledPosition
from edldist.sampling.sampler import ElasticSampler


def sampled(n: int = 20, global_batch_size: int = 6, **placement):
    sampler = ElasticSampler(n, global_batch_size, seed=3, **placement)
    return position_of(DataLoader(list(range(n)), batch_sampler=sampler)), sampler


def run(position, batches: int | None = None, ahead: int = 3) -> list[list[int]]:
    """Consume some batches, reading ahead like the loader; all of them ends the epoch."""
    source, read, consumed = position.start(), [], []
    while True:
        while len(read) < ahead and (item := next(source, None)) is not None:
            read.append(item)
        if batches is not None and len(consumed) == batches:
            return consumed
        if not read:
            position.end_epoch()
            return consumed
        batch, mark = read.pop(0)
        position.consume(mark, len(batch))
        consumed.append(torch.as_tensor(batch).tolist())


def saved(position) -> dict:
    return json.loads(json.dumps(position.state_dict()))


@pytest.mark.parametrize("consumed", [0, 1, 2, 3, 4])
def test_a_sampler_resumes_behind_the_consumed_batches(consumed):
    position, _ = sampled()
    run(position)
    whole = run(sampled_at(position))
    part, _ = sampled()
    run(part)
    head = run(part, consumed)
    assert head == whole[:consumed]
    assert part.state_dict()["sampler"]["samples"] == min(20, consumed * 6)
    restored, _ = sampled()
    restored.load_state_dict(saved(part))
    assert restored.epoch == 1
    assert head + run(restored) == whole
    assert restored.epoch == 2


def sampled_at(position):
    other, _ = sampled()
    other.load_state_dict(saved(position))
    return other


def test_leaving_early_goes_on_with_the_next_epoch():
    for position in (sampled()[0], CountedPosition([[n] for n in range(5)])):
        run(position, 2)
        assert position.epoch == 0
        run(position)
        assert position.epoch == 2


def test_an_epoch_set_by_the_script_is_the_one_that_runs():
    position, sampler = sampled()
    run(position, 1)
    sampler.set_epoch(5)
    run(position, 1)
    assert position.epoch == 5


def test_padding_counts_for_nothing_and_parts_weigh_their_share():
    positions = [sampled(n=5, global_batch_size=4, rank=rank, world_size=3)[0] for rank in range(3)]
    weighed = []
    for position in positions:
        marks = [(mark, len(batch)) for batch, mark in position.start()]
        weighed.append([(position.consume(mark, n), mark.part.weight) for mark, n in marks])
        assert position.state_dict()["sampler"]["samples"] == 5
    assert weighed == [[(2, 6 / 4), (1, 3.0)], [(1, 3 / 4), (0, 0.0)], [(1, 3 / 4), (0, 0.0)]]


@pytest.mark.parametrize("consumed", [0, 2, 5])
def test_a_plain_iterable_is_skipped_to_its_place(consumed):
    data = [[n] * (n + 1) for n in range(5)]
    position = CountedPosition(data)
    run(position)
    run(position, consumed)
    assert position.state_dict() == {
        "epoch": 1,
        "batches": consumed,
        "samples": sum(len(batch) for batch in data[:consumed]),
    }
    restored = CountedPosition(data)
    restored.load_state_dict(saved(position))
    assert run(restored) == data[consumed:]
    assert run(restored) == data
    assert restored.epoch == 3


def test_a_data_loader_that_became_shorter_cannot_be_resumed():
    position = CountedPosition([[0]] * 4)
    run(position, 3)
    shorter = CountedPosition([[0]] * 2)
    shorter.load_state_dict(saved(position))
    with pytest.raises(CheckpointError, match="at batch 3 of epoch 0.*ended after 2"):
        shorter.start()


class StatefulLoader:
    """Counts what it has yielded, ahead of what is consumed."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self):
        while self.at < 6:
            self.at += 1
            yield [self.at - 1]
        self.at = 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


def test_a_stateful_loader_is_restored_to_what_was_consumed():
    position = position_of(StatefulLoader())
    assert run(position, 2, ahead=4) == [[0], [1]]
    restored = position_of(StatefulLoader())
    restored.load_state_dict(saved(position))
    assert run(restored) == [[2], [3], [4], [5]]
    assert run(restored) == [[n] for n in range(6)]


def test_the_kind_of_position_follows_the_sampler():
    assert isinstance(sampled()[0], SampledPosition)
    assert isinstance(position_of([1, 2]), CountedPosition)
    assert isinstance(position_of(DataLoader([1, 2])), CountedPosition)


def test_a_state_of_another_kind_of_loader_is_refused():
    with pytest.raises(CheckpointError, match="lacks 'sampler'.*epoch, batches, samples"):
        sampled()[0].load_state_dict(CountedPosition([]).state_dict())
    with pytest.raises(CheckpointError, match="lacks 'epoch'"):
        CountedPosition([]).load_state_dict(sampled()[0].state_dict())
