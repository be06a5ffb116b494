"""Whether every added teacher adds its full rate: simulated workers, whose forward pass is a sleep."""

from __future__ import annotations

import contextlib
import itertools
import statistics
from collections.abc import Callable, Sequence

import torch

from edldist_benchmarks.figures import Budget, Curve, Figure, Point, Result, Settings, interleave, rate
from edldist_benchmarks.job import WORKERS_PER_PROCESS, open_job

__all__ = ["BATCH", "PASS_S", "many", "mixed", "worker_curve"]

BATCH = 128
PASS_S = 0.05
MANY = 32
FAST_S, SLOW_S, OF_EACH = 0.01, 0.04, 2
CURVE = (1, 2, 4, 8, 16, 32, 64)
MAX_REPEATS = 3


def many(settings: Settings) -> Result:
    """32 workers of 50 ms per 32 samples, against 32 times one."""
    with contextlib.ExitStack() as stack:
        one = _fleet(stack, [(1, PASS_S)], settings.seconds)
        all_of_them = _fleet(stack, [(MANY, PASS_S)], settings.seconds)
        runs = interleave(settings.repeats, many=all_of_them, limit=lambda: MANY * one())
    note = f"{WORKERS_PER_PROCESS} simulated workers share a process; their passes are sleeps"
    return Result([_figure(f"{MANY} workers", runs["many"], runs["limit"], f"{MANY}x one")], notes=[note])


def mixed(settings: Settings) -> Result:
    """Two workers of 10 ms and two of 40 ms together, against the sum of what each does alone."""
    with contextlib.ExitStack() as stack:
        fast = _fleet(stack, [(1, FAST_S)], settings.seconds)
        slow = _fleet(stack, [(1, SLOW_S)], settings.seconds)
        both = _fleet(stack, [(OF_EACH, FAST_S), (OF_EACH, SLOW_S)], settings.seconds)
        runs = interleave(settings.repeats, mixed=both, fast=fast, slow=slow)
    alone = [OF_EACH * (a + b) for a, b in zip(runs["fast"], runs["slow"], strict=True)]
    return Result([_figure("2 of 10 ms, 2 of 40 ms", runs["mixed"], alone, "sum of single ones")])


def worker_curve(settings: Settings) -> Result:
    """1, 2, 4 ... 64 workers, each number in a job of its own."""
    points: list[Point] = []
    figures = []
    for workers in CURVE:
        with contextlib.ExitStack() as stack:
            fleet = _fleet(stack, [(workers, PASS_S)], settings.seconds)
            runs = [fleet() for _ in range(min(settings.repeats, MAX_REPEATS))]
        value = statistics.median(runs)
        points.append(Point(workers, value, workers * (points[0].value if points else value)))
        limits = [points[-1].ideal] if workers > 1 else []
        figures.append(Figure.median_of(f"{workers} workers", "samples/s", runs, limits, f"{workers}x one"))
    title = "Simulated workers, 50 ms per 32 samples"
    curve = Curve("workers", title, "teacher workers", "samples/s", points, "n times one")
    return Result(figures, [curve])


def _fleet(
    stack: contextlib.ExitStack, parts: Sequence[tuple[int, float]], seconds: float
) -> Callable[[], float]:
    """A job of simulated workers, numbers and seconds a pass; samples a second when called."""
    job = stack.enter_context(open_job())
    for workers, pass_s in parts:
        job.simulated(workers, pass_s)
    batch = torch.zeros(BATCH, 64, dtype=torch.uint8)
    batches = iter(job.loader(itertools.repeat(batch), sum(workers for workers, _ in parts)))
    return lambda: BATCH * rate(lambda: next(batches), seconds)


def _figure(what: str, values: Sequence[float], limits: Sequence[float], limit_name: str) -> Figure:
    return Figure.median_of(what, "samples/s", values, limits, limit_name, Budget(at_least=0.95))
