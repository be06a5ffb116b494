"""The order of an epoch is a function of (seed, epoch), whoever loads its batches."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    get_worker_info,
)

from edldist.errors import CheckpointError, ConfigError
from edldist.student.loader import DistillLoader
from edldist.student.loop.reading import ReadAhead
from edldist.wire.memory import MemoryTransport

_SAMPLES = 24


class Bare(Sampler):
    """Draws one index after the other, from a generator of each kind."""

    def __iter__(self):
        for _ in range(_SAMPLES // 3):
            yield random.randrange(_SAMPLES)
            yield int(np.random.randint(_SAMPLES))
            yield int(torch.randint(_SAMPLES, ()))

    def __len__(self):
        return _SAMPLES


class Eager(Sampler):
    """Draws its order when it is opened, before anybody asks for an index."""

    def __iter__(self):
        return iter(torch.randperm(_SAMPLES).tolist())

    def __len__(self):
        return _SAMPLES


class Numbers(Dataset):
    """Draws as it is read, as an augmentation does."""

    def __len__(self):
        return _SAMPLES

    def __getitem__(self, index):
        torch.rand(3), random.random(), np.random.rand()
        return index


class Late:
    """Opens the data loader in it with the first batch only."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        yield from self.loader


_SAMPLERS = {
    "shuffle": lambda: {"shuffle": True, "batch_size": 4},
    "replacement": lambda: {"sampler": RandomSampler(range(_SAMPLES), True), "batch_size": 4},
    "subset": lambda: {"sampler": SubsetRandomSampler(range(_SAMPLES)), "batch_size": 4},
    "weighted": lambda: {"sampler": WeightedRandomSampler([1.0] * _SAMPLES, _SAMPLES), "batch_size": 4},
    "bare": lambda: {"sampler": Bare(), "batch_size": 4},
    "eager": lambda: {"sampler": Eager(), "batch_size": 4},
    "batches": lambda: {"batch_sampler": BatchSampler(Bare(), 4, False)},
    "single": lambda: {"sampler": Bare(), "batch_size": None},
}
_WORKERS = {"0": {}, "1": {"num_workers": 1}, "2": {"num_workers": 2, "prefetch_factor": 3}}
_WORKERS["persistent"] = {"num_workers": 1, "persistent_workers": True}


def loop(make, state=None, batches=None, ends=2, seed=5):
    """Consume batches up to the end of epoch 1, or so many of it; a state goes on where it was saved."""
    torch.manual_seed(seed)
    ahead = ReadAhead(make(), lambda batch: {"x": torch.as_tensor(batch).reshape(-1)})
    if state is not None:
        ahead.position.load_state_dict(state)
    seen: list[list[int]] = []
    while ahead.position.epoch < ends:
        assert not ahead.begin()
        ahead.start()
        queue, taken, epoch = [], 0, []
        while True:
            ahead.fill(lambda queue=queue: len(queue) < 3, queue.append)
            if ahead.position.epoch == 1 and taken == batches:
                ahead.drop()
                return [*seen, epoch], ahead.position.state_dict()
            if ahead.ended:
                break
            ahead.take()
            batch = queue.pop(0)
            ahead.position.consume(batch.mark, batch.samples)
            epoch += torch.as_tensor(batch.batch).reshape(-1).tolist()
            taken += 1
        ahead.end()
        seen.append(epoch)
    return seen, ahead.position.state_dict()


@pytest.mark.parametrize("wrap", [lambda loader: loader, Late], ids=["plain", "late"])
@pytest.mark.parametrize("sampler", _SAMPLERS)
def test_a_place_is_resumed_with_any_number_of_workers(sampler, wrap):
    def make(workers):
        return lambda: wrap(DataLoader(Numbers(), **_SAMPLERS[sampler](), **_WORKERS[workers]))

    whole, _ = loop(make("0"))
    assert whole[0] != whole[1]
    others = list(_WORKERS) if sampler in ("shuffle", "bare") else ["0", "2"]
    for index, saved_with in enumerate(others):
        seen, state = loop(make(saved_with), batches=1 + index)
        assert seen == [whole[0], whole[1][: len(seen[1])]]
        # What is saved is a count, and what is read the whole epoch: one other kind is as good as all.
        resumed_with = others[(index + 1) % len(others)]
        rest, _ = loop(make(resumed_with), state)
        assert seen[1] + rest[0] == whole[1], (saved_with, resumed_with)


def test_an_order_is_another_one_with_another_seed_and_for_each_loader_in_a_pair():
    class Pair:
        def __init__(self):
            self.loader, self._loader = (DataLoader(range(_SAMPLES), 4, shuffle=True) for _ in range(2))

        def __iter__(self):
            return (torch.stack(each) for each in zip(self.loader, self._loader, strict=True))

    seen, _ = loop(Pair)
    pairs = torch.tensor(seen).view(2, -1, 2, 4)
    assert not torch.equal(pairs[:, :, 0], pairs[:, :, 1])
    assert loop(Pair)[0] == seen != loop(Pair, seed=6)[0]


@pytest.mark.parametrize("workers", ["0", "persistent"])
def test_a_data_loader_is_left_as_it_was(workers):
    sampler = BatchSampler(Bare(), 4, False)
    loader = DataLoader(Numbers(), batch_sampler=sampler, **_WORKERS[workers])
    loop(lambda: loader)
    assert loader.batch_sampler is loader._index_sampler is sampler
    if loader._iterator is not None:
        assert loader._iterator._index_sampler is sampler


class Stream(IterableDataset):
    def __iter__(self):
        info = get_worker_info()
        yield from range(_SAMPLES) if info is None else range(info.id, _SAMPLES, info.num_workers)


@pytest.mark.parametrize(
    ("saved", "resumed"),
    [((0, 4), (2, 4)), ((2, 4), (0, 4)), ((2, 4), (1, 4)), ((2, 4), (2, 2))],
)
def test_a_stream_is_refused_with_other_workers_in_the_middle_of_an_epoch(saved, resumed):
    def make(layout):
        return lambda: DataLoader(Stream(), layout[1], num_workers=layout[0])

    seen, state = loop(make(saved), batches=2)
    says = "num_workers={} and batch_size={}"
    with pytest.raises(CheckpointError, match=f"{says.format(*saved)}.*{says.format(*resumed)}"):
        loop(make(resumed), state)
    rest, _ = loop(make(saved), state)
    assert sorted(seen[1] + rest[0]) == list(range(_SAMPLES))
    _, between = loop(make(saved), batches=0)
    assert sorted(loop(make(resumed), between)[0][0]) == list(range(_SAMPLES))


def test_a_stream_of_one_reader_goes_on_in_batches_of_another_size():
    seen, state = loop(lambda: DataLoader(Stream(), 4), batches=2)
    rest, _ = loop(lambda: DataLoader(Stream(), 2), state)
    assert seen[1] + rest[0] == list(range(_SAMPLES))


def test_batches_in_any_order_have_no_position():
    def make(workers, **options):
        loader = DataLoader(range(_SAMPLES), 4, num_workers=workers, in_order=False)
        return DistillLoader(loader, coordinator="tcp://127.0.0.1:1", transport=MemoryTransport(), **options)

    with pytest.raises(ConfigError, match="in_order=False"):
        make(2)
    make(1).close()
    make(2, checkpointed=False).close()
