"""What tracing costs on the small label path: the same loader and worker, with a trace and without."""

from __future__ import annotations

import contextlib
import functools
import statistics
from collections.abc import Iterator
from typing import Any

from edldist.wire.messages import LONGEST_TRACE_S
from edldist.wire.trace_query import Collected, TraceClient
from edldist_benchmarks.figures import (
    WARM_UP,
    Budget,
    Figure,
    NotMeasuredError,
    Result,
    Settings,
    interleave,
    rate,
)
from edldist_benchmarks.job import open_job
from edldist_benchmarks.label_path import SMALL
from edldist_launch.view.traces import processes_of, sample_for

__all__ = ["measure_tracing"]

SLACK_S = 1.0
"""A trace begins when its order has come, and has to outlast the run whose cost it is."""
MOST_LOST = 0.05
_BUDGET = Budget(at_least=1 - MOST_LOST)


def measure_tracing(settings: Settings) -> Result:
    """128 samples of 64 bytes in, 10 fp32 out each: as ``edldist trace`` follows tasks; and all of them."""
    seconds = settings.seconds * (1 + WARM_UP) + SLACK_S
    if seconds > LONGEST_TRACE_S:
        raise NotMeasuredError(f"a trace of {seconds:g} s: {LONGEST_TRACE_S:g} are the most (--seconds)")
    records: list[int] = []
    with open_job(SMALL.shared) as job, contextlib.closing(TraceClient(job.address)) as client:
        job.teacher(SMALL.model, SMALL.worker_batch, SMALL.labels)
        loader = job.loader(SMALL.batches(), 1, high_watermark=SMALL.high_watermark, checkpointed=False)
        batches = iter(loader)
        plain = functools.partial(_samples_a_second, batches, settings)

        def traced(sample: int) -> float:
            collected = client.begin(seconds, sample)
            reached = plain()
            client.collect(collected, seconds)
            records.append(_records(collected))
            return reached

        plain()
        followed = sample_for(job.address)
        runs = interleave(
            settings.repeats,
            chosen=functools.partial(traced, followed),
            every=functools.partial(traced, 1),
            limit=plain,
        )
    rows = (
        ("chosen", f"64 bytes, as edldist trace does (one task in {followed})", _BUDGET),
        ("every", "64 bytes, every task traced (--sample 1)", None),
    )
    figures = [
        Figure.median_of(what, "samples/s", runs[name], runs["limit"], "without a trace", budget)
        for name, what, budget in rows
    ]
    note = f"a trace of {seconds:.1f} s has {statistics.median(records):.0f} records in the median"
    return Result(figures, notes=[note])


def _records(collected: Collected) -> int:
    return sum(len(records) for each in processes_of(collected) for records in each.records.values())


def _samples_a_second(batches: Iterator[Any], settings: Settings) -> float:
    return SMALL.batch * rate(lambda: next(batches), settings.seconds)
