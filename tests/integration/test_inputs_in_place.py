"""Teachers that write to their inputs, in passes that run out of memory: no wrong label, and no poison."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import tests.models

pytestmark = pytest.mark.timeout(240)


def test_workers_that_all_spoil_their_first_pass_label_everything_in_the_end(
    job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def label(id: Tensor) -> Tensor:  # noqa: A002
        id.mul_(2)
        if len(id) > 8:
            raise torch.OutOfMemoryError("no memory on purpose")
        return id.unsqueeze(1)

    monkeypatch.setattr(tests.models, "spoiling", lambda: label, raising=False)
    for _ in range(4):
        job.teacher("spoiling", batch_size=32)
    data = [{"id": torch.arange(start, start + 32)} for start in range(0, 3200, 32)]
    loader = job.loader(data, inputs="id")
    for number, (batch, labels) in enumerate(loader):
        assert torch.equal(batch["id"], torch.arange(number * 32, number * 32 + 32))
        assert torch.equal(labels["logits"].squeeze(1), batch["id"] * 2)
    assert number == len(data) - 1
    stats = loader.stats()
    assert stats["failed"] == 0 and stats["requeued"] >= 1
