"""What a training loop of device steps loses to distillation: with labels from teachers, and in memory."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable

import torch

from edldist_benchmarks.figures import Budget, Figure, Result, Settings, interleave, rate
from edldist_benchmarks.job import open_job
from edldist_benchmarks.teachers import TASK_SAMPLES

__all__ = ["simulated"]

STEP_S = 0.02
TURNS = 2
"""Turns for each repeat: so many that the ratio has an interval."""
WORKERS = 2


def simulated(settings: Settings) -> Result:
    """A device step of 20 ms, simulated by a sleep, on 32x3x224x224 uint8; teachers could do twice that.

    It is one batch again and again: labelled by teachers, and as it lies in memory.
    """
    batch = torch.ones(TASK_SAMPLES, 3, 224, 224, dtype=torch.uint8)
    item = batch, {"logits": torch.ones(TASK_SAMPLES, 1000, dtype=torch.float16)}

    def speed(batches: Iterable[object]) -> Callable[[], float]:
        items = iter(batches)

        def step() -> None:
            next(items)
            time.sleep(STEP_S)

        return lambda: TASK_SAMPLES * rate(step, settings.seconds)

    with open_job(shared=False) as by_tcp, open_job(shared=True) as by_memory:
        loaders = []
        for job in (by_tcp, by_memory):
            job.simulated(WORKERS, STEP_S, "float16:1000")
            loaders.append(job.loader(itertools.repeat(batch), WORKERS))
        tcp, shared = map(speed, loaders)
        turns = TURNS * settings.repeats
        runs = interleave(turns, tcp=tcp, plain=speed(itertools.repeat(item)), shared=shared)
    budget = Budget(at_least=0.98)
    return Result(
        [
            Figure.paired(what, "samples/s", runs[name], runs["plain"], "labels in memory", budget)
            for name, what in (("tcp", "labels over TCP"), ("shared", "through shared memory"))
        ]
    )
