"""A whole job over shared memory: every label where it belongs, no batch spoiled, whoever does not share."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from edldist.wire.zmq.transport import ZmqTransport
from tests.fault.pictures import Pictures, check
from tests.harness import local_job

SAMPLES = 640


def _shares(loader) -> bool:
    return any(pairing.paired for pairing in loader._service._hub._pairings.values())


@pytest.mark.parametrize("num_workers", [0, 2], ids=["ordinary memory", "lent memory"])
@pytest.mark.parametrize("batch_size", [7, 32], ids=["sliced", "whole"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "socket"])
def test_labels_and_batches_are_exact(num_workers: int, batch_size: int, shared: bool) -> None:
    """The model writes into its inputs, which several workers read in slices of one batch."""
    with local_job(ZmqTransport(shared_memory=shared)) as job:
        for _ in range(2):
            job.teacher("spoiler", batch_size=batch_size)
        data = DataLoader(Pictures(SAMPLES), batch_size=32, num_workers=num_workers)
        seen = 0
        for batch, labels in (loader := job.loader(data, inputs="picture")):
            check(batch, labels)
            seen += len(batch["id"])
        assert seen == SAMPLES
        assert _shares(loader) == shared
        stats = loader.stats()
        assert stats["failed"] == stats["garbage"] == stats["requeued"] == 0


def test_a_worker_that_does_not_share_and_one_that_does_serve_one_student() -> None:
    with local_job(ZmqTransport(shared_memory=True)) as job:
        job.teacher("spoiler", batch_size=16)
        job.transport = ZmqTransport(shared_memory=False)
        job.teacher("spoiler", batch_size=16)
        job.transport = ZmqTransport(shared_memory=True)
        data = DataLoader(Pictures(SAMPLES), batch_size=32, num_workers=1)
        loader = job.loader(data, inputs="picture")
        for batch, labels in loader:
            check(batch, labels)
        assert _shares(loader)
        assert loader.stats()["failed"] == 0


def test_labels_stay_when_the_worker_is_gone() -> None:
    """They were copied out of its memory, or lie in memory that outlives it."""
    with local_job(ZmqTransport(shared_memory=True)) as job:
        job.teacher("spoiler", batch_size=32)
        loader = job.loader(DataLoader(Pictures(320), batch_size=32), inputs="picture")
        kept = [(dict(batch), {k: v for k, v in labels.items()}) for batch, labels in loader]
    assert len(kept) == 10
    for batch, labels in kept:
        assert isinstance(labels["logits"], torch.Tensor)
        check(batch, labels)
