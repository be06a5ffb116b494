"""Ranks that share one fleet: together they get all of it, and each its part."""

from __future__ import annotations

import statistics
import time

from edldist_benchmarks.figures import Curve, Figure, Point, Result, Settings
from edldist_benchmarks.job import open_job
from edldist_benchmarks.label_path import SMALL
from edldist_benchmarks.student import Book
from edldist_benchmarks.teachers import TASK_SAMPLES

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
            figures.append(Figure("  the least served rank", least, "of its fair share"))
    title = f"Ranks that share {WORKERS} simulated workers"
    return Result(
        figures, [Curve("ranks", title, "student ranks", "samples/s", points, "capacity of the fleet")]
    )


def _measure(ranks: int, settings: Settings) -> tuple[list[float], float]:
    """Samples a second of all ranks together in each run, and the smallest share of one in a fair part.

    Batches come in order, so several at once behind a late one: shares are those of all runs together.
    """
    totals = []
    with open_job() as job:
        job.simulated(WORKERS, PASS_S, SMALL.labels)
        books = [Book(job.processes.folder / f"rank-{number}.book") for number in range(ranks)]
        for book in books:
            job.rank(book.path, "small")
        job.processes.wait("all ranks to be served", lambda: all(book.served_by(WORKERS) for book in books))
        time.sleep(settings.seconds)
        began = time.monotonic()
        for _ in range(min(settings.repeats, MAX_REPEATS)):
            since = time.monotonic()
            time.sleep(settings.seconds)
            job.processes.check()
            totals.append(sum(SMALL.batch * book.rate(since, time.monotonic()) for book in books))
        shares = [book.rate(began, time.monotonic()) for book in books]
    return totals, min(shares) * ranks / sum(shares)
