"""What a training loop loses to distillation: with labels from teachers, and with labels in memory."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

import edldist
from edldist_benchmarks.figures import Budget, Figure, Result, Settings, interleave, rate
from edldist_benchmarks.job import Job, open_job
from edldist_benchmarks.teachers import TASK_SAMPLES

__all__ = ["CLASSES", "simulated", "trained", "trainer"]

STEP_S = 0.02
CLASSES = 10
Labelled = tuple[Tensor, Mapping[str, Tensor]]


def simulated(settings: Settings) -> Result:
    """A device step of 20 ms, simulated by a sleep, on 32x3x224x224 uint8; teachers could do twice that."""
    batch = torch.ones(TASK_SAMPLES, 3, 224, 224, dtype=torch.uint8)
    labels = {"logits": torch.ones(TASK_SAMPLES, 1000, dtype=torch.float16)}
    with _jobs() as jobs:
        for job in jobs:
            job.simulated(2, STEP_S, "float16:1000")
        budget = Budget(at_least=0.98)
        return _compare(jobs, 2, (batch, labels), lambda item: time.sleep(STEP_S), budget, settings)


def trained(settings: Settings) -> Result:
    """A small convolutional net on one thread of this CPU, batches of 64x3x32x32 fp32, KD loss."""
    batch = torch.rand(64, 3, 32, 32)
    hard = torch.arange(64) % CLASSES
    labels = {"logits": torch.ones(64, CLASSES)}
    with _jobs() as jobs, _one_thread():
        for job in jobs:
            job.teacher("noop", 64, f"float32:{CLASSES}")
        result = _compare(jobs, 1, (batch, labels), trainer(hard), Budget(at_least=0.95), settings)
    plain = result.figures[0].limit or float("inf")
    result.notes.append(f"one plain step takes {1e3 * len(batch) / plain:.0f} ms")
    return result


@contextlib.contextmanager
def _jobs() -> Iterator[list[Job]]:
    """One job whose tensors go over TCP, as between hosts, and one that shares memory."""
    with open_job(shared=False) as by_tcp, open_job(shared=True) as by_memory:
        yield [by_tcp, by_memory]


def _compare(
    jobs: Sequence[Job],
    workers: int,
    item: Labelled,
    train: Callable[[Labelled], object],
    budget: Budget,
    settings: Settings,
) -> Result:
    """Train on one batch again and again: labelled by teachers, and as it lies in memory."""
    batch, _ = item

    def speed(batches: Iterable[Labelled]) -> Callable[[], float]:
        items = iter(batches)
        return lambda: len(batch) * rate(lambda: train(next(items)), settings.seconds)

    tcp, shared = (speed(job.loader(itertools.repeat(batch), workers)) for job in jobs)
    runs = interleave(settings.repeats, tcp=tcp, plain=speed(itertools.repeat(item)), shared=shared)
    figures = [
        Figure.median_of(what, "samples/s", runs[name], runs["plain"], "labels in memory", budget)
        for name, what in (("tcp", "labels over TCP"), ("shared", "through shared memory"))
    ]
    return Result(figures)


def trainer(hard: Tensor) -> Callable[[Labelled], object]:
    """Steps of a small convolutional net on 3x32x32 images, with the labels of its teacher."""

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, CLASSES),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def train(item: Labelled) -> None:
        batch, labels = item
        loss = edldist.losses.kd(model(batch), labels["logits"], hard, temperature=4.0, alpha=0.9)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return train


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Leave the other cores to the worker, as a device of its own would."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
