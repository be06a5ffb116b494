"""How fast the workers on a type of device are: what each stage takes, by the stage rows of runs. Pure.

A *row* of a pass is what batch sizes count: a sample, or a token of a sequence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edldist_launch.planner.line import Line, fit_line
from edldist_launch.planner.rows import STAGES, StageRow

__all__ = ["COMPUTE", "LEAST_ROWS", "WorkerPace", "fit_paces", "sizes_of"]

COMPUTE = ("decode", "batch", "copy_in", "forward", "encode", "copy_out")
"""Stages of the compute thread; the others are the I/O thread's."""
LEAST_ROWS = 4
"""Fewer passes of a size say nothing of it."""
QUANTILES = 101


@dataclass(frozen=True)
class WorkerPace:
    """Workers on one type of device.

    Attributes:
        device: the type.
        lines: of each stage, seconds by the rows of a pass.
        spread: how much longer than its line a pass takes, as a factor: the quantiles of all passes.
        sizes: rows of the smallest and the largest passes that were seen often enough to count; the last
            batch of an epoch, say, is none.
        rows: how many were fitted.
        error: by how much half of the passes differ at least from what all lines together say, as a share.
        row_bytes: of the inputs of a row.
        overlaps: whether copies of one pass overlap the compute of another.
    """

    device: str
    lines: Mapping[str, Line]
    spread: Sequence[float] = (1.0,)
    sizes: tuple[int, int] = (1, 1)
    rows: int = 0
    error: float = 0.0
    row_bytes: float = 0.0
    overlaps: bool = False
    tables: dict[tuple[str, ...], dict[int, float]] = field(default_factory=dict, compare=False, repr=False)

    def takes(self, size: int, *stages: str) -> float:
        """Seconds that these stages take together, without the spread."""
        known = self.tables.setdefault(stages, {})
        found = known.get(size)
        if found is None:
            found = known[size] = sum(self.lines[stage].at(size) for stage in stages)
        return found

    def pass_s(self, size: int) -> float:
        """Seconds from one full pass to the next, of a worker that never waits for tasks."""
        own = self.takes(size, *COMPUTE)
        if self.overlaps:
            own = max(self.takes(size, *station) for station in stations(overlaps=True))
        return max(own * float(np.mean(self.spread)), self.takes(size, "receive", "send"))

    def rows_per_s(self, batch_size: int) -> float:
        """What a worker that never waits labels."""
        return batch_size / max(self.pass_s(batch_size), 1e-9)


def stations(*, overlaps: bool) -> tuple[tuple[str, ...], ...]:
    """What a pass goes through after each other, each for one pass at a time."""
    if overlaps:
        return (("decode", "batch", "copy_in"), ("forward", "encode"), ("copy_out",))
    return (COMPUTE,)


def sizes_of(rows: Iterable[StageRow]) -> list[int]:
    """The sizes of passes that were seen often enough to count."""
    return sorted(size for size, count in Counter(row.size for row in rows).items() if count >= LEAST_ROWS)


def fit_paces(rows: Sequence[StageRow]) -> dict[str, WorkerPace]:
    """The pace of every type of device that rows are of."""
    by_device: dict[str, list[StageRow]] = {}
    for row in rows:
        by_device.setdefault(row.device, []).append(row)
    return {device: _fit(device, those) for device, those in sorted(by_device.items())}


def _fit(device: str, rows: Sequence[StageRow]) -> WorkerPace:
    sizes = [row.size for row in rows]
    lines = {stage: fit_line(sizes, [row.stages.get(stage, 0.0) for row in rows]) for stage in STAGES}
    often = sizes_of(rows) or sizes
    pace = WorkerPace(device, lines)
    took = np.array([sum(row.stages.get(stage, 0.0) for stage in COMPUTE) for row in rows])
    ratios = took / np.maximum([pace.takes(size, *COMPUTE) for size in sizes], 1e-9)
    return WorkerPace(
        device,
        lines,
        spread=tuple(float(each) for each in np.quantile(ratios, np.linspace(0, 1, QUANTILES))),
        sizes=(min(often), max(often)),
        rows=len(rows),
        error=float(np.median(np.abs(ratios - 1))),
        row_bytes=float(np.median([row.bytes_in / row.size for row in rows])),
        overlaps=device != "cpu",
    )
