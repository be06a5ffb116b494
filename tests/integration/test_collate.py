"""Data loaders with ``edldist.collate``: workers, forks, kills, and a whole job."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

import edldist
from edldist.errors import SharedMemoryError
from edldist.wire.shm.slots import of_this_process
from edldist.wire.zmq.transport import ZmqTransport
from tests.fault.pictures import Pictures, check, picture
from tests.harness import local_job

pytestmark = pytest.mark.timeout(240)

SAMPLES = 320


def exact(batch: dict[str, Tensor]) -> bool:
    return torch.equal(batch["picture"], torch.stack([picture(int(index)) for index in batch["id"]]))


def in_slot(tensor: Tensor) -> bool:
    return of_this_process.file_of(tensor.untyped_storage().data_ptr()) is not None


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert not of_this_process._uses
    of_this_process._forget_dead()
    assert len(of_this_process) == 0


@pytest.mark.parametrize(
    ("context", "workers"), [("fork", 2), pytest.param("spawn", 1, marks=pytest.mark.slow)]
)
def test_batches_of_workers_are_exact_and_come_in_the_same_few_slots(context: str, workers: int) -> None:
    data = DataLoader(
        Pictures(SAMPLES),
        batch_size=16,
        num_workers=workers,
        multiprocessing_context=context,
        collate_fn=edldist.collate,
    )
    places = set()
    for number, batch in enumerate(data):
        assert exact(batch) and batch["id"].tolist() == list(range(16 * number, 16 * number + 16))
        assert type(batch["picture"]) is type(batch["id"]) is Tensor
        assert in_slot(batch["picture"]) and not batch["id"].is_shared()
        places.add(batch["picture"].data_ptr())
    assert number == SAMPLES // 16 - 1 and len(places) <= 5 * workers


def test_batches_that_are_kept_stay_what_they_were() -> None:
    data = DataLoader(Pictures(SAMPLES), batch_size=16, num_workers=1, collate_fn=edldist.collate)
    kept = list(data)
    assert all(map(exact, kept)) and len({batch["picture"].data_ptr() for batch in kept}) == len(kept)


def test_a_child_that_is_forked_with_a_batch_sees_that_batch_for_good() -> None:
    data = iter(DataLoader(Pictures(SAMPLES), batch_size=16, num_workers=1, collate_fn=edldist.collate))
    batch = next(data)
    seen = batch["picture"].numpy()
    wanted, ready = seen.tobytes(), os.pipe()
    child = os.fork()
    if child == 0:  # without torch, whose threads are not here
        os.read(ready[0], 1)
        os._exit(0 if seen.tobytes() == wanted else 1)
    del seen
    del batch
    for other in data:
        assert exact(other)
        del other
    os.write(ready[1], b"x")
    assert os.waitpid(child, 0)[1] == 0
    for fd in ready:
        os.close(fd)


class Stream(IterableDataset[dict[str, Tensor]]):
    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return (Pictures(SAMPLES)[index] for index in range(SAMPLES))


@pytest.mark.parametrize("persistent", [False, True])
def test_epochs_that_are_left_early_and_begun_again_lose_nothing(persistent: bool) -> None:
    data = DataLoader(
        Stream(), batch_size=16, num_workers=1, persistent_workers=persistent, collate_fn=edldist.collate
    )
    for stop in (3, 5, 100):
        for number, batch in enumerate(data):
            assert exact(batch) and batch["id"][0] == 16 * number
            if number == stop:
                break
        del batch
    del data


def _doubled(samples: list[Any]) -> Any:
    batch = edldist.collate(samples)
    batch["picture"].neg_()
    batch["half"] = batch["picture"][:8]
    batch["other"] = batch["picture"].float()
    return batch


def test_a_collate_function_of_ones_own_may_do_what_it_likes_with_the_batch() -> None:
    data = DataLoader(Pictures(SAMPLES), batch_size=16, num_workers=1, collate_fn=_doubled)
    for batch in data:
        wanted = -torch.stack([picture(int(index)) for index in batch["id"]])
        assert torch.equal(batch["picture"], wanted) and torch.equal(batch["half"], wanted[:8])
        assert torch.equal(batch["other"], wanted.float())


def test_a_worker_that_is_killed_takes_nothing_along_that_was_delivered() -> None:
    """And leaves nothing: see ``nothing_is_left``."""
    data = iter(DataLoader(Pictures(1 << 16), batch_size=16, num_workers=1, collate_fn=edldist.collate))
    kept = [next(data) for _ in range(3)]
    os.kill(data._workers[0].pid, signal.SIGKILL)
    with pytest.raises(
        (RuntimeError, SharedMemoryError), match=r"killed by signal|exited unexpectedly|on its way"
    ) as raised:
        for _ in range(1 << 12):
            kept.append(next(data))
    del raised
    assert all(map(exact, kept)) and len(kept) < 1 << 12
    del data


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("batch_size", [7, 32], ids=["sliced", "whole"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "socket"])
def test_labels_and_batches_of_a_job_are_exact(num_workers: int, batch_size: int, shared: bool) -> None:
    """The model writes into its inputs, which several workers read in slices of one batch."""
    with local_job(ZmqTransport(shared_memory=shared)) as job:
        for _ in range(2):
            job.teacher("spoiler", batch_size=batch_size)
        data = DataLoader(Pictures(640), batch_size=32, num_workers=num_workers, collate_fn=edldist.collate)
        seen = 0
        for batch, labels in (loader := job.loader(data, inputs="picture")):
            check(batch, labels)
            seen += len(batch["id"])
        assert seen == 640
        stats = loader.stats()
        assert stats["failed"] == stats["garbage"] == stats["requeued"] == 0
        loader.close()
        del batch, labels, loader, data
