"""Plans beside real runs: what a replay says of settings that its logs do not hold, and what those then did.

Two runs of a small job are fitted (batch sizes 16 and 64). Then three others are foretold and run: another
batch size, another number of workers, another depth of reading ahead. All are real processes: a coordinator,
workers, and a rank. The teacher's model multiplies its inputs, and then sleeps until a stated time is over,
``PASS_S`` a pass and ``SAMPLE_S`` a sample, as a device of that speed would: an honest load, and one that
leaves the CPUs of a small machine to the processes. The rank's step is a sleep, too.

``python -m edldist_benchmarks.plan`` prints the table.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Generator, Tensor, randn

from edldist_benchmarks.figures import Budget, Figure, Result, Settings
from edldist_launch.planner.logs import RunLogs, read_logs
from edldist_launch.planner.pace import WorkerPace
from edldist_launch.planner.planning import check, paces_of, trip_of
from edldist_launch.planner.search import Search
from edldist_launch.planner.setting import Loop, Setting
from edldist_launch.planner.target import Option, Target

__all__ = ["main", "measure_plan", "stated"]

PASS_S, SAMPLE_S, STEP_S = 0.02, 0.001, 0.05
FEATURES, CLASSES, BATCH = 64, 10, 64
RUN_S = 25.0
TIMEOUT_S = 180.0

JOB = """\
name: plan
teachers:
- name: teacher
  model: "edldist_benchmarks.plan:stated"
  device: cpu
  batch_size: {batch_size}
  replicas: {workers}
student:
  script: {script}
  args: [--depth, "{depth}"]
"""


def stated() -> Callable[[Tensor], Tensor]:
    """A teacher of a stated service time."""
    weights = randn(FEATURES, CLASSES, generator=Generator().manual_seed(0))

    def label(x: Tensor) -> Tensor:
        until = time.monotonic() + PASS_S + SAMPLE_S * x.shape[0]
        logits = x @ weights
        time.sleep(max(0.0, until - time.monotonic()))
        return logits

    return label


@dataclass(frozen=True)
class Case:
    """A setting: ``what`` it is for."""

    what: str
    batch_size: int
    workers: int
    depth: int


FITTED = (Case("fitted", 16, 1, 8), Case("fitted", 64, 2, 8))
HELD_OUT = (
    Case("another batch size", 32, 1, 8),
    Case("another number of workers", 16, 3, 8),
    Case("another depth", 64, 2, 2),
)


def run(case: Case, folder: Path) -> RunLogs:
    """Run a case as a whole job, and read what it left."""
    folder.mkdir(parents=True)
    job = folder / "job.yaml"
    job.write_text(
        JOB.format(
            batch_size=case.batch_size,
            workers=case.workers,
            depth=case.depth,
            script=Path(__file__).resolve(),
        )
    )
    output = folder / "out"
    command = [sys.executable, "-m", "edldist_launch", "run", str(job), "--output", str(output), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode:
        raise RuntimeError(f"{case}: edldist run ended with {done.returncode}: {done.stderr[-2000:]}")
    return read_logs(output)


def measure_plan(settings: Settings) -> Result:
    """The held-out settings, foretold and run; then the search beside every setting of its space."""
    result = Result()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        fitted = [run(case, place / f"fitted-{number}") for number, case in enumerate(FITTED)]
        paces = paces_of(fitted)
        trip_s = trip_of(fitted)
        own_s = max(logs.loop.own_s for logs in fitted)
        for number, case in enumerate(HELD_OUT):
            foretold = check(run(case, place / f"held-{number}"), paces, trip_s, own_s)
            what = f"{case.what} (batch size {case.batch_size}, {case.workers} workers, depth {case.depth})"
            result.figures += [
                _beside(
                    f"{what}: samples/s", "", foretold.replayed_samples_per_s, foretold.samples_per_s, 0.15
                ),
                _beside(
                    f"{what}: 95% of tasks take at most",
                    "ms",
                    1e3 * foretold.replayed_task_p95_s,
                    1e3 * foretold.task_p95_s,
                    0.25,
                ),
            ]
        result.figures += _search(fitted[-1].loop, paces, trip_s)
    result.notes.append(
        f"A pass of n samples takes {1e3 * PASS_S:g} ms + n x {1e3 * SAMPLE_S:g} ms, a step "
        f"{1e3 * STEP_S:g} ms; {BATCH} samples a batch. The limit is what the run showed, the value what was "
        "foretold. Tasks are those of stage rows."
    )
    return result


def _beside(what: str, unit: str, foretold: float, was: float, within: float) -> Figure:
    return Figure(what, foretold, unit, was, "the run", Budget(1 - within, 1 + within))


def _search(loop: Loop, paces: Mapping[str, WorkerPace], trip_s: float) -> list[Figure]:
    """A plan, and the best of all settings that it might have been."""
    target = Target("efficiency", 0.95)
    sizes, depths, most = [16, 32, 64], [2, 4, 8, 16], 8
    began = time.perf_counter()
    found = Search(loop, paces, {"cpu": most}, sizes, depths, 100_000, trip_s).plan(target)
    took_s = time.perf_counter() - began
    every = Search(loop, paces, {"cpu": most}, sizes, depths, 100_000, trip_s)
    options: list[Option] = [
        every.look(Setting.of(size, depth, {"cpu": count}))
        for size, depth, count in itertools.product(sizes, depths, range(1, most + 1))
    ]
    best = min(options, key=target.place)
    return [
        Figure(
            f"worker seconds of the best of {len(options)} settings, beside the plan's",
            best.worker_s,
            "s",
            found.best.worker_s,
            "the plan",
            Budget(at_least=0.9),
        ),
        Figure("the search took", took_s, "s", budget=Budget(at_most=10, of="value")),
    ]


def main() -> None:
    """Print the table."""
    for figure in (result := measure_plan(Settings())).figures:
        ratio = (
            "" if figure.ratio is None else f" | {figure.limit:,.1f} {figure.limit_name}: {figure.ratio:.2f}"
        )
        print(f"{figure.what} | {figure.value:,.1f} {figure.unit}{ratio} | {figure.verdict}")
    print(*result.notes, sep="\n")


def _train(depth: int) -> None:
    """The rank of a case."""
    import torch

    import edldist

    batches = [{"x": torch.rand(BATCH, FEATURES)} for _ in range(16)]
    count = itertools.count()
    endless = (batches[number % len(batches)] for number in count)
    began = time.monotonic()
    with edldist.DistillLoader(endless, inputs="x", low_watermark=depth // 4, high_watermark=depth) as loader:
        for step, _ in enumerate(loader, 1):
            time.sleep(STEP_S)
            edldist.report(step=step)
            if time.monotonic() - began > RUN_S:
                break


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--depth", type=int, help="of the rank that this process is to be")
    depth = parser.parse_args().depth
    main() if depth is None else _train(depth)
