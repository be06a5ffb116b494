"""Teacher workers and a student that share the CPUs of one machine: by themselves, and as torch would.

Left alone, torch takes a thread for each CPU in every process, and threads that wait for others of
their process spin. A worker that is started by hand takes its part of the CPUs instead
(``OMP_NUM_THREADS`` where it is not set; see docs/teachers.md).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import torch

from edldist.cpus import usable_cpus
from edldist_benchmarks.figures import Figure, Result, Settings, interleave, rate
from edldist_benchmarks.job import Job, open_job
from edldist_benchmarks.small_net import CLASSES, trainer

__all__ = ["measure_threads"]

SAMPLES = 64
WORKERS = (1, 2, 4)


def measure_threads(settings: Settings) -> Result:
    """A convolutional teacher and a convolutional student, batches of 64x3x32x32, all of them on the CPU."""
    threads = torch.get_num_threads()
    try:
        return Result([_measure(workers, settings) for workers in WORKERS])
    finally:
        torch.set_num_threads(threads)


def _measure(workers: int, settings: Settings) -> Figure:
    cpus = usable_cpus()
    with open_job() as job, open_job() as crowded_job:
        shared = _speed(job, workers, "", max(1, cpus // (workers + 1)), settings)
        crowded = _speed(crowded_job, workers, str(cpus), cpus, settings)
        runs = interleave(settings.repeats, shared=shared, crowded=crowded)
    what = f"{workers} teacher worker{'s' if workers > 1 else ''} and a student, CPUs shared"
    limit = f"{cpus} threads in each process"
    return Figure.median_of(what, "samples/s", runs["shared"], runs["crowded"], limit)


def _says(log: Path, words: str) -> bool:
    return words in log.read_text(encoding="utf-8", errors="replace")


def _speed(job: Job, workers: int, chosen: str, threads: int, settings: Settings) -> Callable[[], float]:
    """The student's rate.

    Args:
        chosen: ``OMP_NUM_THREADS`` of each worker; empty: it takes what it takes by itself.
        threads: of the student, which is this process.
    """
    for number in range(workers):  # one after another: each looks who is there
        job.teacher("convolving", SAMPLES, OMP_NUM_THREADS=chosen)
        log = job.processes.folder / f"teacher-{number + 1}.log"
        job.processes.wait("a worker's choice", functools.partial(_says, log, "CPU threads"))
    batches = iter(job.loader(itertools.repeat(torch.rand(SAMPLES, 3, 32, 32)), workers))
    train = trainer(torch.arange(SAMPLES) % CLASSES)

    def measure() -> float:
        torch.set_num_threads(threads)
        return SAMPLES * rate(lambda: train(next(batches)), settings.seconds)

    return measure
