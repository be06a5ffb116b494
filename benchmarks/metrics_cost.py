"""What metrics cost where they cost most: the label path of 64-byte samples, counted and not, in one run."""

from __future__ import annotations

import contextlib
import functools
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from edldist_benchmarks.figures import Budget, Figure, Result, Settings, interleave, rate
from edldist_benchmarks.job import Job, open_job
from edldist_benchmarks.label_path import SMALL
from edldist_benchmarks.uncounted import stop_counting

__all__ = ["measure_metrics"]

_SCRAPE_S = 1.0
"""Fifteen times as often as Prometheus asks by default."""


def measure_metrics(settings: Settings) -> Result:
    """Two jobs side by side: one counts, and is scraped each second; of the other, nobody counts anything."""
    with contextlib.ExitStack() as stack:
        counted = stack.enter_context(open_job(shared=False))
        uncounted = stack.enter_context(open_job(shared=False))
        loaders = []
        for job, model in ((counted, "noop"), (uncounted, "uncounted")):
            job.teacher(model, SMALL.worker_batch, SMALL.labels)
            options = {"workers": 1, "high_watermark": SMALL.high_watermark}
            loaders.append(job.loader(SMALL.batches(), **options))
        with_metrics, without = (
            functools.partial(_samples_a_second, iter(loader), settings) for loader in loaders
        )
        runs = interleave(
            2 * settings.repeats,
            counted=lambda: _scraped(counted, with_metrics),
            uncounted=lambda: _uncounted(without),
        )
    budget = Budget(at_least=0.98)
    named = "the same, nothing counted"
    return Result(
        [
            Figure.median_of(
                "64 bytes, with metrics", "samples/s", runs["counted"], runs["uncounted"], named, budget
            )
        ]
    )


def _samples_a_second(batches: Iterator[Any], settings: Settings) -> float:
    return SMALL.batch * rate(lambda: next(batches), settings.seconds)


def _uncounted(measure: Callable[[], float]) -> float:
    put_back = stop_counting()
    try:
        return measure()
    finally:
        put_back()


def _scraped(job: Job, measure: Callable[[], float]) -> float:
    """Measure while somebody asks for the metrics, as often as ``_SCRAPE_S`` says."""
    ready = json.loads((job.processes.folder / "coordinator.json").read_text())
    page, over = f"http://{ready['http']}/metrics", threading.Event()

    def scrape() -> None:
        while not over.wait(_SCRAPE_S):
            with contextlib.suppress(OSError), urllib.request.urlopen(page, timeout=5) as answer:
                answer.read()

    scraper = threading.Thread(target=scrape, name="scraper")
    scraper.start()
    try:
        return measure()
    finally:
        over.set()
        scraper.join()
