"""Out of the logs of runs, a plan: what is fitted, what is tried, and how well a replay fits. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edldist.bounds import MOST_WORKERS
from edldist.errors import ConfigError
from edldist_launch.planner.frontier import enough_workers, frontier, sweep
from edldist_launch.planner.logs import RunLogs
from edldist_launch.planner.pace import WorkerPace, fit_paces, sizes_of
from edldist_launch.planner.replay import TRIP_S, replay
from edldist_launch.planner.search import Search
from edldist_launch.planner.setting import Setting
from edldist_launch.planner.target import Option, Target

__all__ = ["Check", "Plan", "check", "make_plan", "paces_of", "trip_of"]

LEAST_RATIO = 1.25
"""The largest pass that was seen has so many times the rows of the smallest, or no line is fitted."""
DEPTHS = (2, 4, 8, 16, 32)
MOST_SIZES = 8
WAY_S, MOST_REACTION_S = 0.0002, 0.05
LEAST_CHECKED, MOST_CHECKED = 100, 1000
"""Batches of a run that are replayed to check it."""
PLENTY = 3
"""Where nobody says how many workers there may be: so many times as many as the student can use."""


@dataclass(frozen=True)
class Check:
    """A run, and the replay of its own setting.

    Attributes:
        logs: of the run.
        setting: that it had.
        samples_per_s, task_p95_s: what it showed, and ``replayed_...`` what the replay says. 95% of the tasks
            in its stage rows were in their worker so long at most.
    """

    logs: RunLogs
    setting: Setting
    samples_per_s: float
    task_p95_s: float
    replayed_samples_per_s: float
    replayed_task_p95_s: float

    @property
    def rate_error(self) -> float:
        """By how much the replay is above the run, as a share."""
        return self.replayed_samples_per_s / self.samples_per_s - 1

    @property
    def p95_error(self) -> float:
        return self.replayed_task_p95_s / max(self.task_p95_s, 1e-9) - 1


@dataclass(frozen=True)
class Plan:
    """What a search came to.

    Attributes:
        target: what was asked for, and ``met`` whether ``best`` meets it or is the nearest.
        best: the plan.
        frontier: what cost buys in efficiency, the cheapest first; ``seen`` all that was replayed.
        enough: so many workers give all of the efficiency that there is, and no fewer than the plan's.
        checks: runs beside their own replays.
        paces: of the types of devices.
        most: how many workers of each were allowed.
        sizes: batch sizes that were tried.
        runs: whose logs were read; ``planned_for`` is the one whose student is planned for.
        trip_s: how long messages travel.
    """

    target: Target
    met: bool
    best: Option
    frontier: Sequence[Option]
    seen: Sequence[Option]
    enough: int
    checks: Sequence[Check]
    paces: Mapping[str, WorkerPace]
    most: Mapping[str, int]
    sizes: Sequence[int]
    runs: Sequence[RunLogs]
    trip_s: float

    @property
    def planned_for(self) -> RunLogs:
        return self.runs[-1]


def make_plan(
    runs: Sequence[RunLogs],
    target: Target,
    most: Mapping[str, int] | None = None,
    batch_size: int | None = None,
    samples: int | None = None,
) -> Plan:
    """Plan for the student of the last run, with the workers of all.

    Args:
        runs: at least one, of one teacher.
        target: what is to be reached.
        most: how many workers there may be on types of devices; those that are not named may not be used.
            None: as many as can be of any use, on all types.
        batch_size: the only one to try; None for all sizes between those that were seen.
        samples: of the run that is planned; None for those of the last one.

    Raises:
        ConfigError: the logs hold too little, or nothing of a type that is named.
    """
    paces = paces_of(runs, batch_size)
    trip_s = trip_of(runs)
    last = runs[-1]
    if most is None:
        most = {device: _plenty(pace, last, batch_size) for device, pace in paces.items()}
    elif strangers := sorted(most.keys() - paces.keys()):
        raise ConfigError(
            f"--most {strangers[0]}={most[strangers[0]]}: no row is of such a device; there are rows of "
            f"{', '.join(paces)}"
        )
    if not any(most.values()):
        raise ConfigError("--most: no workers at all are allowed; allow one on some type of device")
    sizes = [batch_size] if batch_size is not None else _sizes({d: paces[d] for d in most if most[d]}, last)
    depths = sorted({*DEPTHS, last.high_watermark})
    search = Search(
        last.loop, paces, most, sizes, depths, last.samples if samples is None else samples, trip_s
    )
    found = search.plan(target)
    swept = sweep(search, found.best.setting)
    return Plan(
        target=target,
        met=found.met,
        best=found.best,
        frontier=frontier(search.seen),
        seen=search.seen,
        enough=enough_workers(swept, found.best.setting.workers),
        checks=[check(run, paces, trip_s) for run in runs if run.steady],
        paces=paces,
        most=most,
        sizes=sizes,
        runs=runs,
        trip_s=trip_s,
    )


def paces_of(runs: Sequence[RunLogs], batch_size: int | None = None) -> dict[str, WorkerPace]:
    """What workers take, by the rows of all runs.

    Raises:
        ConfigError: passes are all of about one size, which is not the only one to try.
    """
    rows = [row for run in runs for row in run.rows]
    for device in sorted({row.device for row in rows}):
        sizes = sizes_of(row for row in rows if row.device == device)
        if not sizes:
            raise ConfigError(
                f"the logs hold {sum(row.device == device for row in rows)} stage rows of {device}, of no "
                "batch size four or more: let the job run for some ten seconds longer"
            )
        if sizes[-1] < LEAST_RATIO * sizes[0] and sizes != [batch_size]:
            other = sizes[-1] // 4 if sizes[-1] >= 8 else sizes[-1] * 4
            place = runs[-1].position or 0
            raise ConfigError(
                f"the logs hold passes of {' and '.join(map(str, sizes))} rows alone ({device}): how "
                "long others take cannot be told. Let the job run for some ten seconds with another batch "
                "size, and plan from both:\n"
                f"  edldist run JOB.yaml --set teachers.{place}.batch_size={other} --output OTHER\n"
                f"  edldist plan {runs[-1].folder} OTHER\n"
                f"Or plan with this size alone: --batch-size {sizes[-1]}"
            )
    return fit_paces(rows)


def trip_of(runs: Sequence[RunLogs]) -> float:
    """How long a message travels: on its way, and until the thread at the end of it runs.

    The latter is what answers wait for in workers, on the same machines under the same load.
    """
    waits = [row.wait_s.get("send", 0.0) for run in runs for row in run.rows]
    return WAY_S + min(float(np.mean(waits)), MOST_REACTION_S)


def check(
    run: RunLogs, paces: Mapping[str, WorkerPace], trip_s: float = TRIP_S, own_s: float | None = None
) -> Check:
    """Replay the setting that a run had, and as many batches.

    Args:
        run: what is replayed.
        paces: of its workers.
        trip_s: how long messages travel.
        own_s: of the loop, where another run is to say that.
    """
    size = run.batch_size or max(row.size for row in run.rows)
    counts = tuple(sorted(run.counts.items()))
    setting = Setting(size, run.high_watermark, counts, run.low_watermark)
    loop = run.loop if own_s is None else replace(run.loop, own_s=own_s)
    batches = round(run.samples / (loop.ranks * loop.batch_samples))
    replayed = replay(setting, loop, paces, trip_s, batches=min(max(batches, LEAST_CHECKED), MOST_CHECKED))
    return Check(
        run,
        setting,
        run.samples_per_s,
        float(np.quantile([row.total_s for row in run.rows], 0.95)),
        replayed.samples_per_s,
        replayed.row_p95_s,
    )


def _sizes(paces: Mapping[str, WorkerPace], last: RunLogs) -> list[int]:
    """Batch sizes within what was seen on every device: whether more fits into memory nobody knows."""
    least = max(pace.sizes[0] for pace in paces.values())
    most = min(pace.sizes[1] for pace in paces.values())
    sizes = {most} | {1 << power for power in range(31) if least <= 1 << power <= most}
    if last.batch_size is not None and least <= last.batch_size <= most:
        sizes.add(last.batch_size)
    return sorted(sizes)[-MOST_SIZES:]


def _plenty(pace: WorkerPace, last: RunLogs, batch_size: int | None) -> int:
    rate = max(pace.rows_per_s(size) for size in {batch_size or pace.sizes[1], pace.sizes[1]})
    useful = last.loop.samples_per_s * last.loop.sample_rows / rate
    return min(MOST_WORKERS, max(4, round(PLENTY * useful + 0.5)))
