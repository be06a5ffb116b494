"""However a loop ends, nothing of it is left to a garbage collector, which runs in whichever thread it likes.

A data loader's iterator joins its worker processes when it is finalised, and a script's own objects do what
they do: in the thread that talks to the workers, that would keep pings and heartbeats waiting.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from edldist.errors import InputError, LoaderClosedError, PoisonTaskError
from edldist.student.batch.batch import OpenBatch
from edldist.wire.zmq.transport import ZmqTransport
from tests.harness import local_job

pytestmark = pytest.mark.timeout(240)


class Numbers(Dataset):
    def __init__(self, bad: int = -1) -> None:
        self.bad = bad

    def __len__(self):
        return 24

    def __getitem__(self, index):
        if index == self.bad:
            raise ValueError(f"sample {index} is broken")
        return {"id": index, "x": torch.full((9000,), float(index))}


class Refilled(IterableDataset):
    def __iter__(self):
        memory = torch.zeros(4, 9000)
        for number in range(8):
            memory.fill_(number)
            yield {"id": torch.arange(4), "x": memory}


class Wrapped:
    """One that hides the iterator, as Accelerate's do."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        yield from self.loader


class Stopped(Exception):
    pass


def whole(loader):
    for _ in loader:
        pass


def left(loader):
    for _ in loader:
        break


def raised_in_body(loader):
    for number, _ in enumerate(loader):
        if number == 1:
            raise Stopped


def closed_in_body(loader):
    for _ in loader:
        loader.close()


def asked_in_body(loader):
    for _ in loader:
        loader.ends_epoch  # noqa: B018 - it reads
        loader.state_dict()


@pytest.fixture
def uncollected():
    """No garbage is collected but by the test."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def iterators(monkeypatch):
    """Weak references to all iterators with worker processes that are made."""
    made: list[weakref.ref] = []
    init = _MultiProcessingDataLoaderIter.__init__

    def noted(self, loader):
        made.append(weakref.ref(self))
        init(self, loader)

    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "__init__", noted)
    return made


_LOADERS = {
    "plain": lambda bad=-1: DataLoader(Numbers(bad), 4, num_workers=1),
    "wrapped": lambda bad=-1: Wrapped(DataLoader(Numbers(bad), 4, num_workers=1)),
    "persistent": lambda bad=-1: DataLoader(Numbers(bad), 4, num_workers=1, persistent_workers=True),
}
_WAYS = {
    "end": (whole, -1, "identify", None),
    "break": (left, -1, "identify", None),
    "body": (raised_in_body, -1, "identify", Stopped),
    "closed": (closed_in_body, -1, "identify", LoaderClosedError),
    "asked": (asked_in_body, -1, "identify", None),
    "sample": (whole, 13, "identify", ValueError),
    "first sample": (whole, 0, "identify", ValueError),
    "poison": (whole, -1, "raises_on_13", PoisonTaskError),
}


def ended(memory_job, make, loop, model, error):
    memory_job.teacher(model)
    data_loader = make()
    loader = memory_job.loader(data_loader, inputs="id")
    memory_job.loaders.remove(loader)
    try:
        loop(loader)
    except Exception as caught:
        assert error is not None and isinstance(caught, error)
    else:
        assert error is None
    loader.close()
    return weakref.ref(loader), weakref.ref(data_loader)


@pytest.mark.parametrize("kind", _LOADERS)
@pytest.mark.parametrize("way", _WAYS)
def test_a_loop_that_ended_leaves_no_garbage(memory_job, uncollected, iterators, way, kind):
    loop, bad, model, error = _WAYS[way]
    kept = ended(memory_job, lambda: _LOADERS[kind](bad), loop, model, error)
    assert iterators
    assert not [each() for each in (*iterators, *kept) if each() is not None]


def test_a_loop_that_was_refused_leaves_no_garbage(memory_job, uncollected, iterators):
    make = lambda: DataLoader(Refilled(), None, num_workers=1)  # noqa: E731
    kept = ended(memory_job, make, whole, "identify", InputError)
    assert not [each() for each in (*iterators, *kept) if each() is not None]


def test_worker_processes_end_with_the_error_though_a_script_keeps_it(memory_job, iterators):
    memory_job.teacher("identify")
    loader = memory_job.loader(_LOADERS["wrapped"](13), inputs="id")
    with pytest.raises(ValueError, match="sample 13") as kept:
        whole(loader)
    assert kept.value.__traceback__ is not None
    (iterator,) = [each() for each in iterators]
    assert iterator._shutdown and not any(worker.is_alive() for worker in iterator._workers)


class Thing:
    """What a script puts into its batches, and what is left as it is for its finaliser's sake."""

    def __del__(self):
        pass


def test_who_works_on_a_batch_in_another_thread_does_not_hold_what_a_script_put_into_it(
    memory_job, monkeypatch
):
    held, made = [], []
    place, lease = OpenBatch.place, OpenBatch.inputs_of
    monkeypatch.setattr(OpenBatch, "place", lambda self, *rest: held.append(self) or place(self, *rest))
    monkeypatch.setattr(OpenBatch, "inputs_of", lambda self, name: held.append(self) or lease(self, name))

    def batch(number):
        thing = Thing()
        made.append(weakref.ref(thing))
        return {"id": torch.full((4,), number), "thing": thing}

    memory_job.teacher("identify")
    loader = memory_job.loader(map(batch, range(20)), inputs="id")
    for count, (got, _) in enumerate(loader, 1):  # enumerate keeps the last pair
        del got
        assert not [each() for each in made[: count - 1] if each() is not None]
        if count == 5:
            break
    loader.close()
    assert held and len(made) > 5
    del _
    assert sum(each() is not None for each in made) == 0


LEFT_BEHIND = """
import sys, torch, edldist
batches = iter(edldist.DistillLoader([torch.arange(4)] * 9, coordinator=sys.argv[1]))
next(batches)
print("in the middle")
"""


def test_a_loop_that_is_left_behind_at_a_scripts_end_is_no_error():
    with local_job(ZmqTransport()) as job:
        job.teacher("identify_any")
        command = [sys.executable, "-c", LEFT_BEHIND, job.address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert (done.returncode, done.stdout) == (0, "in the middle\n"), done.stderr
    assert "Exception ignored" not in done.stderr and "Traceback" not in done.stderr
