"""A loop that was asked to stop takes the step it is in, whatever becomes of the data loader's processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from edldist.lifecycle import stopping
from tests.harness import LocalJob

pytestmark = pytest.mark.timeout(240)


class Data:
    """Batches of two samples, read one after the other; none any more once its readers are gone."""

    def __init__(self) -> None:
        self.read = 0
        self.gone = False

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        while not self.gone:
            self.read += 1
            yield {"id": torch.full((2,), self.read)}
        raise RuntimeError("DataLoader worker (pid(s) 17) exited unexpectedly")


def test_nothing_is_read_ahead_any_more(memory_job: LocalJob, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_job.teacher()
    data = Data()
    loader = memory_job.loader(data, inputs="id", high_watermark=4, checkpointed=False)
    steps = iter(loader)
    next(steps)
    ahead = data.read - 1
    assert ahead >= 1
    monkeypatch.setattr(stopping, "asked", lambda: True)
    for _ in range(ahead):
        batch, labels = next(steps)
        assert len(labels["logits"]) == len(batch["id"])
    assert data.read == 1 + ahead


def test_the_loop_is_left_where_no_batch_is_left(
    memory_job: LocalJob, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An orderly stop is no failure of the script: what it was told comes first."""
    memory_job.teacher()
    data = Data()
    loader = memory_job.loader(data, inputs="id", high_watermark=3, checkpointed=False)
    steps = iter(loader)
    next(steps)
    monkeypatch.setattr(stopping, "asked", lambda: True)
    data.gone = True
    with pytest.raises(SystemExit) as left:
        for _ in range(10):
            next(steps)
    assert left.value.code == 0
    assert "asked to stop, and no batch can be read" in caplog.text
    assert "exited unexpectedly" in caplog.text


def test_of_one_that_was_not_asked_the_error_is_its_own(memory_job: LocalJob) -> None:
    memory_job.teacher()
    data = Data()
    steps = iter(memory_job.loader(data, inputs="id", high_watermark=3, checkpointed=False))
    next(steps)
    data.gone = True
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        for _ in range(10):
            next(steps)
