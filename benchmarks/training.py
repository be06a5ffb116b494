"""What real training on the CPU loses to distillation, with one rank and with two."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from edldist_benchmarks.figures import Budget, Figure, Result, Settings
from edldist_benchmarks.job import open_job
from edldist_benchmarks.pinning import share_cores, spare_cores
from edldist_benchmarks.processes import EDLDIST
from edldist_benchmarks.small_net import CLASSES
from edldist_benchmarks.training_script import BATCH, SOURCES, TRANSPORTS

__all__ = ["measure_training"]

SCRIPT = str(Path(__file__).with_name("training_script.py"))
RANKS = (1, 2)
TURNS = 3
"""Turns for each repeat: the interval of the ratio is to be narrower than what is asked of it."""


def measure_training(settings: Settings) -> Result:
    """A small convolutional net, a thread of the CPU for each rank, a teacher that costs nothing, KD loss."""
    result = Result([])
    for ranks in RANKS:
        measured = _measure(ranks, settings)
        for source, what in SOURCES.items():
            runs = measured[source]
            for transport, way in TRANSPORTS.items():
                result.figures.append(
                    Figure.paired(
                        f"{ranks} rank{'s' if ranks > 1 else ''}, {what}, {way}",
                        "samples/s",
                        runs[transport],
                        runs["plain"],
                        "labels in memory",
                        Budget(at_least=0.98),
                    )
                )
            result.notes.append(_note(ranks, what, runs))
    return result


def _note(ranks: int, what: str, runs: dict[str, Any]) -> str:
    step_ms = 1e3 * BATCH * ranks / sorted(runs["plain"])[len(runs["plain"]) // 2]
    told = ", ".join(f"{name} {rate:.1f}" for name, rate in runs["switches_a_second"].items())
    pinned = "" if spare_cores(ranks) else "; no core is left for what serves them"
    return (
        f"{ranks} rank{'s' if ranks > 1 else ''}, {what}: one plain step takes {step_ms:.0f} ms; involuntary "
        f"switches of rank 0's training thread a second: {told}{pinned}"
    )


def _measure(ranks: int, settings: Settings) -> dict[str, dict[str, Any]]:
    """Samples a second of all ranks in each turn, by source and by where labels come from."""
    with open_job(shared=False) as by_tcp, open_job(shared=True) as by_memory:
        spare = spare_cores(ranks)
        for job in (by_tcp, by_memory):
            worker = job.teacher("noop", BATCH, f"float32:{CLASSES}")
            if spare:
                share_cores(worker.pid, spare)
        folder = by_tcp.processes.folder
        plan = {
            "tcp": by_tcp.address,
            "shared": by_memory.address,
            "cores": sorted(os.sched_getaffinity(0)),
            "spare": sorted(spare),
            "turns": TURNS * settings.repeats,
            "seconds": settings.seconds / 2,
            "result": str(folder / f"training-{ranks}.json"),
        }
        student = ["student", "--coordinator", by_tcp.address, "--nproc-per-node", str(ranks)]
        node = by_tcp.processes.start("node", *EDLDIST, *student, SCRIPT, json.dumps(plan))
        written = Path(plan["result"])
        by_tcp.processes.wait("the ranks to measure", written.exists, timeout_s=3600.0)
        by_tcp.processes.kill_tree(node)
        measured: dict[str, dict[str, Any]] = json.loads(written.read_text())
    return measured
