"""Ranks that share one fleet: together they get all of it, and each its part."""

from __future__ import annotations

import statistics
import time

from benchmarks.figures import WARM_UP, Curve, Figure, Point, Result, Settings
from benchmarks.job import open_job
from benchmarks.label_path import SMALL
from benchmarks.student import Book
from benchmarks.teachers import TASK_SAMPLES

__all__ = ["rank_curve"]

RANKS = (1, 2, 4, 8)
WORKERS = 16
PASS_S = 0.05
MAX_REPEATS = 3


def rank_curve(settings: Settings) -> Result:
    """Samples a second of 1, 2, 4 and 8 ranks, each a process, under 16 simulated workers of 50 ms."""
    capacity = WORKERS * TASK_SAMPLES / PASS_S
    points, figures = [], []
    for ranks in RANKS:
        totals, least = _measure(ranks, settings)
        points.append(Point(ranks, statistics.median(totals), capacity))
        limits = [capacity] * len(totals)
        figures.append(
            Figure.median_of(f"{ranks} ranks", "samples/s", totals, limits, "fleet's sleeps alone")
        )
        if ranks > 1:
            figures.append(Figure.median_of("  the least served rank", "of its fair share", least))
    title = f"Ranks that share {WORKERS} simulated workers"
    return Result(
        figures, [Curve("ranks", title, "student ranks", "samples/s", points, "capacity of the fleet")]
    )


def _measure(ranks: int, settings: Settings) -> tuple[list[float], list[float]]:
    """Samples a second of all ranks together, and the smallest share of one in a fair part, of each run."""
    totals, least = [], []
    with open_job() as job:
        job.simulated(WORKERS, PASS_S, SMALL.labels)
        books = [Book(job.processes.folder / f"rank-{number}.book") for number in range(ranks)]
        for book in books:
            job.rank(book.path, "small")
        job.processes.wait("all ranks to be served", lambda: all(book.served_by(WORKERS) for book in books))
        time.sleep(settings.seconds * WARM_UP)
        for _ in range(min(settings.repeats, MAX_REPEATS)):
            since = time.monotonic()
            time.sleep(settings.seconds)
            job.processes.check()
            rates = [SMALL.batch * book.rate(since, time.monotonic()) for book in books]
            totals.append(sum(rates))
            least.append(min(rates) * ranks / sum(rates))
    return totals, least
