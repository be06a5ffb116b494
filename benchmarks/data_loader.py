"""Images from a data set's samples to the labelled batch, stacked by torch and by ``edldist.collate``.

A data loader with one worker stacks what a teacher worker on this host copies once. No stage computes
anything else, so that the memory of the batches is what is measured. Its limit is that of the label path:
a process that copies as much. CPU is that of the three processes, which says more than the rate where they
have fewer cores than they are.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

import edldist
from edldist_benchmarks.counters import cpu_s
from edldist_benchmarks.figures import Figure, Result, Settings, interleave, rate
from edldist_benchmarks.job import open_job
from edldist_benchmarks.label_path import LARGE_SHARED
from edldist_benchmarks.memcpy import copy_rate

__all__ = ["Images", "measure_collating"]

_DIFFERENT = 1024  # 154 MB: more than a cache holds
_ENDLESS = 1 << 30


class Images(Dataset[Tensor]):
    """Ones in memory, as if they had been decoded."""

    def __init__(self) -> None:
        self._images = torch.ones(_DIFFERENT, *LARGE_SHARED.sample_shape, dtype=LARGE_SHARED.input_dtype)

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: int) -> Tensor:
        return self._images[index % _DIFFERENT]


class _Path:
    """One job, whose batches are stacked in one way, and the CPU of each of its processes a batch."""

    def __init__(self, batches: Iterator[Any], teacher: int) -> None:
        before = {child.pid for child in multiprocessing.active_children()}
        next(batches)  # starts the data loader's worker
        (worker,) = {child.pid for child in multiprocessing.active_children()} - before
        assert worker is not None
        self._pids = {
            "the data loader's worker": worker,
            "the rank": os.getpid(),
            "the teacher worker": teacher,
        }
        self._batches = batches
        self.cpu_ms: dict[str, list[float]] = {name: [] for name in self._pids}

    def samples_a_second(self, settings: Settings) -> float:
        count = 0

        def step() -> None:
            nonlocal count
            next(self._batches)
            count += 1

        before = {name: cpu_s(pid) for name, pid in self._pids.items()}
        reached = rate(step, settings.seconds)
        for name, pid in self._pids.items():
            self.cpu_ms[name].append(1e3 * (cpu_s(pid) - before[name]) / count)
        return LARGE_SHARED.batch * reached


@contextlib.contextmanager
def _open_path(images: Images, collate: Callable[[Any], Any]) -> Iterator[_Path]:
    case = LARGE_SHARED
    data = DataLoader(images, case.batch, num_workers=1, collate_fn=collate)
    with open_job(shared=True) as job:
        teacher = job.teacher(case.model, case.worker_batch, case.labels)
        loader = job.loader(data, workers=1, high_watermark=case.high_watermark, checkpointed=False)
        yield _Path(iter(loader), teacher.pid)


def measure_collating(settings: Settings) -> Result:
    """128x3x224x224 uint8, through a data loader's worker, the rank and a worker that copies each batch."""
    images, case = Images(), LARGE_SHARED
    with contextlib.ExitStack() as opened:
        paths = {
            name: opened.enter_context(_open_path(images, collate))
            for name, collate in (("edldist.collate", edldist.collate), ("default_collate", default_collate))
        }
        copies = opened.enter_context(copy_rate(case.input_bytes, case.label_bytes, 2 * case.high_watermark))
        rates = {name: functools.partial(path.samples_a_second, settings) for name, path in paths.items()}
        runs = interleave(settings.repeats, **rates, limit=lambda: case.batch * copies(settings.seconds))
    figures = [
        Figure.median_of(f"images, {name}", "samples/s", runs[name], runs["limit"], "memcpy alone")
        for name in paths
    ]
    ours, theirs = paths["edldist.collate"].cpu_ms, paths["default_collate"].cpu_ms
    figures += [
        Figure.median_of(f"CPU of {process}", "ms a batch", ours[process], theirs[process], "default_collate")
        for process in ours
    ]
    return Result(figures)
