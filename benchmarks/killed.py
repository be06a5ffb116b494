"""One of four workers is killed: the longest gap between batches, and how soon the full rate is back."""

from __future__ import annotations

import bisect
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from edldist_benchmarks.figures import Budget, Figure, Result, Settings
from edldist_benchmarks.job import open_job
from edldist_benchmarks.teachers import TASK_SAMPLES

__all__ = ["full_rate_after", "longest_gap", "measure_killed"]

WORKERS = 4
PASS_S = 0.02
WINDOW_S = 0.5
"""A rate is taken over windows of this length."""
FULL = 0.95
"""Share of the remaining capacity that counts as its full rate."""
OBSERVED_S = 4.0
"""How long to look at least after a death: four budgets."""


@dataclass(frozen=True)
class _Death:
    gap_s: float
    recovery_s: float
    rate: float
    remaining: float


def measure_killed(settings: Settings) -> Result:
    """Real workers of 20 ms per 32 samples; one gets SIGKILL while the loop could take more than all do."""
    deaths = []
    with open_job() as job:
        fleet = [job.one_simulated(PASS_S) for _ in range(WORKERS)]
        loader = job.loader(itertools.repeat(torch.zeros(TASK_SAMPLES, 64, dtype=torch.uint8)), WORKERS)
        batches = iter(loader)
        for turn in range(settings.repeats):
            _take(batches, settings.seconds / 2)
            before = _take(batches, settings.seconds)
            killed_at = time.perf_counter()
            job.processes.kill_tree(fleet.pop(0))
            after = _take(batches, max(OBSERVED_S, 2 * settings.seconds))
            remaining = _mean_rate(before) * (WORKERS - 1) / WORKERS
            deaths.append(
                _Death(
                    longest_gap([before[-1], *after]),
                    full_rate_after(after, killed_at, FULL * remaining),
                    _mean_rate([t for t in after if t > killed_at + 1]),
                    remaining,
                )
            )
            if turn + 1 < settings.repeats:
                fleet.append(job.one_simulated(PASS_S))
                job.await_workers(loader, WORKERS)
    second = Budget(at_most=1.0, of="value")
    return Result(
        [
            Figure.median_of("longest gap", "s", [death.gap_s for death in deaths], budget=second),
            Figure.median_of(
                "full rate again after", "s", [death.recovery_s for death in deaths], budget=second
            ),
            Figure.median_of(
                "rate from 1 s on",
                "samples/s",
                [TASK_SAMPLES * death.rate for death in deaths],
                [TASK_SAMPLES * death.remaining for death in deaths],
                "3/4 of before",
                Budget(at_least=FULL),
            ),
        ]
    )


def longest_gap(times: list[float]) -> float:
    """The longest time between two batches."""
    return max(b - a for a, b in itertools.pairwise(times))


def full_rate_after(times: list[float], since: float, rate: float) -> float:
    """Seconds from ``since`` until a window begins in which ``rate`` batches a second came.

    Infinite if none does.
    """
    for start in [since, *times]:
        if start + WINDOW_S > times[-1]:
            break
        inside = bisect.bisect_right(times, start + WINDOW_S) - bisect.bisect_right(times, start)
        if start >= since and inside >= rate * WINDOW_S - 1:
            return start - since
    return float("inf")


def _mean_rate(times: list[float]) -> float:
    return (len(times) - 1) / (times[-1] - times[0])


def _take(batches: Iterator[object], seconds: float) -> list[float]:
    """When each batch came."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or times[-1] < end:
        next(batches)
        times.append(time.perf_counter())
    return times
