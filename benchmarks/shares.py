"""Three jobs of weights 2, 1 and 1 that ask twice what their fleet gives: who gets how much of it."""

from __future__ import annotations

import time

from edldist_benchmarks.figures import Budget, Figure, Result, Settings
from edldist_benchmarks.job import open_job
from edldist_benchmarks.label_path import SMALL
from edldist_benchmarks.student import Book
from edldist_benchmarks.teachers import TASK_SAMPLES

__all__ = ["measure_shares"]

WEIGHTS = {"a": 2, "b": 1, "c": 1}
OVERLOAD = 2.0
WORKERS = 4
PASS_S = 0.05
LEAST_GOODPUT = 0.9
MOST_OFF = 5.0
SETTLE_S = 20.0
"""The coordinator has seen the overload by then, and has taken its steps."""


def measure_shares(settings: Settings) -> Result:
    """Samples a second of all jobs together, and of each its share, under simulated workers of 50 ms."""
    capacity = WORKERS * TASK_SAMPLES / PASS_S
    step_s = SMALL.batch * len(WEIGHTS) / (OVERLOAD * capacity)
    with open_job() as job:
        job.simulated(WORKERS, PASS_S, SMALL.labels)
        books = {name: Book(job.processes.folder / f"{name}.book") for name in WEIGHTS}
        for name, weight in WEIGHTS.items():
            env = {"EDLDIST_JOB": name, "EDLDIST_WEIGHT": str(weight)}
            job.rank(books[name].path, "small", repr(step_s), **env)
        job.processes.wait(
            "all jobs to be served", lambda: all(book.served_by(WORKERS) for book in books.values())
        )
        time.sleep(SETTLE_S)
        totals: list[float] = []
        shares: dict[str, list[float]] = {name: [] for name in WEIGHTS}
        for _ in range(settings.repeats):
            since = time.monotonic()
            time.sleep(settings.seconds)
            job.processes.check()
            until = time.monotonic()
            rates = {name: SMALL.batch * book.rate(since, until) for name, book in books.items()}
            totals.append(sum(rates.values()))
            for name, rate in rates.items():
                shares[name].append(100 * rate / totals[-1])
    figures = [
        Figure.median_of(
            "goodput of three jobs that ask twice as much",
            "samples/s",
            totals,
            [capacity] * len(totals),
            "fleet's sleeps alone",
            Budget(at_least=LEAST_GOODPUT),
        )
    ]
    for name, weight in WEIGHTS.items():
        due = 100 * weight / sum(WEIGHTS.values())
        off = Figure.median_of(f"  share of job {name}, weight {weight}", "%", shares[name])
        figures += [
            off,
            Figure(
                f"  from its {due:g} %",
                abs(off.value - due),
                "points",
                budget=Budget(at_most=MOST_OFF, of="value"),
            ),
        ]
    return Result(figures)
