"""What Accelerate sees of a loop over a DistillLoader: its end, and not that of what is read ahead."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from edldist.wire.memory import MemoryTransport
from tests.harness import local_job

accelerate = pytest.importorskip("accelerate")
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def accelerator():
    return accelerate.Accelerator(cpu=True, gradient_accumulation_steps=4)


@pytest.fixture
def job():
    with local_job(MemoryTransport()) as made:
        made.teacher("identify_any")
        yield made


def data(samples: int = 26) -> DataLoader:
    return DataLoader(torch.arange(samples), batch_size=2)


def synchronised(accelerator, loader) -> list[int]:
    """The batches after which a step is taken, counted from 0."""
    model = torch.nn.Linear(1, 1)
    steps = []
    for number, _ in enumerate(loader):
        with accelerator.accumulate(model):
            if accelerator.sync_gradients:
                steps.append(number)
    return steps


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("watermarks", [(0, 1), (2, 8)])
def test_the_last_window_of_an_epoch_is_not_dropped(accelerator, job, prepared: bool, watermarks):
    inner = accelerator.prepare(data()) if prepared else data()
    low, high = watermarks
    loader = accelerator.prepare(job.loader(inner, low_watermark=low, high_watermark=high))
    assert synchronised(accelerator, loader) == synchronised(accelerator, loader) == [3, 7, 11, 12]
    assert not accelerator.gradient_state.in_dataloader


def test_a_loop_that_is_left_is_not_entered_any_more(accelerator, job):
    loader = job.loader(accelerator.prepare(data()))
    for _ in loader:
        assert accelerator.gradient_state.in_dataloader
        break
    assert not accelerator.gradient_state.in_dataloader
    assert not accelerator.gradient_state.end_of_dataloader


def test_an_evaluation_inside_of_a_loop_has_an_end_of_its_own(accelerator, job):
    loader, plain = job.loader(accelerator.prepare(data())), accelerator.prepare(data(4))
    ends = []
    for _ in loader:
        outer = accelerator.gradient_state.end_of_dataloader
        ends.append([outer, *(accelerator.gradient_state.end_of_dataloader for _ in plain)])
        assert accelerator.gradient_state.end_of_dataloader == outer
    assert ends == [[False, False, True]] * 12 + [[True, False, True]]


def test_padding_of_the_last_batch_is_known_where_accelerate_knows_it(accelerator, job):
    remainders = []
    for inner in (accelerator.prepare(DataLoader(torch.arange(7), batch_size=2)), data(4)):
        for _ in job.loader(inner):
            remainders.append(accelerator.gradient_state.remainder)
    assert remainders == [1, 1, 1, 1, -1, -1]
