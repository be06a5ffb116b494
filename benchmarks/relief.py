"""What a smaller codec brings a job on an overloaded fleet whose links are narrow: goodput, and bytes."""

from __future__ import annotations

import contextlib
import time

from edldist_benchmarks.figures import Figure, Result, Settings
from edldist_benchmarks.job import Job, open_job
from edldist_benchmarks.label_path import SMALL
from edldist_benchmarks.student import Book
from edldist_benchmarks.teachers import TASK_SAMPLES

__all__ = ["measure_relief"]

PASS_S = 0.02
LABELS = "float32:1000"
CODEC, SMALLER = "dense:fp16", "topk:16"
LINK_BYTES_S = 1_600_000
"""Half of what the worker's passes make in the job's own codec: 1,600 samples a second of 2,000 bytes."""
DEMAND = 2_000
"""Samples a second that the loop could take: more than the passes can give, so the job stays overloaded."""
SETTLE_S = 15.0
"""What workers give is known by then."""


def measure_relief(settings: Settings) -> Result:
    """Two jobs like each other side by side, of which one may be degraded to a smaller codec."""
    passes = TASK_SAMPLES / PASS_S
    with contextlib.ExitStack() as stack:
        books = {}
        for name, env in (("own codec", {}), ("smaller codec", {"EDLDIST_DEGRADE": f"codec={SMALLER}"})):
            job = stack.enter_context(open_job(shared=False))
            books[name] = _start(job, name, {"EDLDIST_WEIGHT": "1", **env}), job
        for book, job in books.values():
            job.processes.wait("the job to be served", lambda book=book: book.served_by(1))
        since = time.monotonic()
        book, job = books["smaller codec"]
        job.processes.wait("the job to be degraded", lambda: any(note.degraded for note in book.read()[-1:]))
        degraded_s = time.monotonic() - since
        time.sleep(SETTLE_S)
        rates: dict[str, list[float]] = {name: [] for name in books}
        sizes: dict[str, list[float]] = {name: [] for name in books}
        for _ in range(settings.repeats):
            since = time.monotonic()
            time.sleep(settings.seconds)
            until = time.monotonic()
            for name, (book, job) in books.items():
                job.processes.check()
                rates[name].append(SMALL.batch * book.rate(since, until))
                sizes[name].append(book.bytes_each(since, until) / SMALL.batch)
    figures = []
    for name, codec in (("own codec", CODEC), ("smaller codec", SMALLER)):
        limit = [passes] * len(rates[name])
        figures.append(
            Figure.median_of(f"goodput, {codec}", "samples/s", rates[name], limit, "worker's passes alone")
        )
        figures.append(Figure.median_of("  labels of a sample", "bytes", sizes[name]))
    note = f"the coordinator degraded the job {degraded_s:.0f} s after it was served"
    return Result(figures, notes=[note])


def _start(job: Job, name: str, env: dict[str, str]) -> Book:
    job.narrow(PASS_S, LABELS, CODEC, LINK_BYTES_S)
    book = Book(job.processes.folder / f"{name.replace(' ', '-')}.book")
    job.rank(book.path, "small", repr(SMALL.batch / DEMAND), **env)
    return book
