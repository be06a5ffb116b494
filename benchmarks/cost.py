"""What a sample costs: bytes, system calls, CPU and memory of a rank, its worker and their coordinator.

The rank's loop does nothing but take batches and the teacher does nothing but hand out labels, so
all that is counted is the label path's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from edldist_benchmarks.counters import (
    bare_torch_bytes,
    count_system_calls,
    cpu_s,
    high_water_bytes,
    loopback_bytes,
    switches,
)
from edldist_benchmarks.figures import WARM_UP, Figure, NotMeasuredError, Result, Settings
from edldist_benchmarks.job import Job, open_job
from edldist_benchmarks.label_path import CASES, Case
from edldist_benchmarks.student import Book

__all__ = ["measure_cost"]

SIDES = ("rank", "worker")
MIB = 2**20


@dataclass
class _Cost:
    """One number for each run, and of each side."""

    wire_bytes: list[float] = field(default_factory=list)
    calls: dict[str, list[float]] = field(default_factory=lambda: {side: [] for side in SIDES})
    cpu: dict[str, list[float]] = field(default_factory=lambda: {side: [] for side in SIDES})
    switches: dict[str, list[float]] = field(default_factory=lambda: {side: [] for side in SIDES})
    memory: dict[str, float] = field(default_factory=dict)


def measure_cost(settings: Settings) -> Result:
    """Each case of the label path in turn, with rank and worker in processes of their own."""
    result = Result()
    bare = bare_torch_bytes() / MIB
    for name, case in CASES.items():
        with open_job(case.shared) as job:
            cost = _measure(job, name, case, settings, result)
        payload = (case.input_bytes + case.label_bytes) / case.batch
        result.figures += _figures(case, cost, payload, bare)
    result.notes.append("bytes are all of the loopback's, so other traffic of this machine counts too")
    result.notes.append("memory counts shared pages in every process that maps them")
    return result


def _measure(job: Job, name: str, case: Case, settings: Settings, result: Result) -> _Cost:
    worker = job.teacher(case.model, case.worker_batch, case.labels)
    book = Book(job.processes.folder / "rank.book")
    rank = job.rank(book.path, name)
    job.processes.wait("the rank to be served", lambda: book.served_by(1))
    time.sleep(settings.seconds * WARM_UP)
    cost = _Cost()
    pids = dict(zip(SIDES, (rank.pid, worker.pid), strict=True))
    for _ in range(settings.repeats):
        since, lo = time.monotonic(), loopback_bytes()
        before = {side: (cpu_s(pid), switches(pid)) for side, pid in pids.items()}
        time.sleep(settings.seconds)
        until, sent = time.monotonic(), loopback_bytes() - lo
        after = {side: (cpu_s(pid), switches(pid)) for side, pid in pids.items()}
        samples = case.batch * book.rate(since, until) * (until - since)
        cost.wire_bytes.append(sent / samples)
        for side in SIDES:
            cost.cpu[side].append((after[side][0] - before[side][0]) / samples * 1e6)
            cost.switches[side].append((after[side][1] - before[side][1]) / samples * case.batch)
    job.processes.check()
    cost.memory = {side: high_water_bytes(pid) / MIB for side, pid in pids.items()}
    cost.memory["coordinator"] = high_water_bytes(job.coordinator_pid) / MIB
    # Last, since being watched slows both.
    try:
        since = time.monotonic()
        counts = count_system_calls(list(pids.values()), settings.seconds)
        rate = book.rate(since, time.monotonic())
        cost.calls = {side: [count / rate] for side, count in zip(SIDES, counts, strict=True)}
    except NotMeasuredError as exc:
        if str(exc) not in result.notes:
            result.notes.append(str(exc))
    return cost


def _figures(case: Case, cost: _Cost, payload: float, bare: float) -> list[Figure]:
    figures = []
    limits = [0.0 if case.shared else payload]
    name = "by tensors alone"
    figures.append(
        Figure.median_of(f"{case.name}: loopback", "bytes a sample", cost.wire_bytes, limits, name)
    )
    for side in SIDES:
        if cost.calls[side]:
            figures.append(Figure.median_of(f"  {side}: system calls", "a batch", cost.calls[side]))
        figures.append(Figure.median_of(f"  {side}: voluntary switches", "a batch", cost.switches[side]))
        figures.append(Figure.median_of(f"  {side}: CPU", "s a million samples", cost.cpu[side]))
    for side, memory in cost.memory.items():
        limit = None if side == "coordinator" else bare
        figures.append(Figure(f"  {side}: memory high-water", memory, "MiB", limit, "MiB torch alone"))
    return figures
