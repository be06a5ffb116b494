"""A student node killed, and one joining: time to the next step, against plain torchrun doing the same.

Plain torchrun gets what edldist gives it: a store outside of the nodes, short time-outs, and ranks
that die with their agent. Without these it does not survive at all.

torchrun's agents look at their store once a second while they wait for each other, so single runs differ by
as much; ``stages`` and the CPU seconds of a start say what a rank's own part in it is.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from subprocess import Popen
from typing import Any

from edldist_benchmarks.plain_torchrun import ENVIRONMENT, plain_command
from edldist_benchmarks.processes import EDLDIST, Processes, wait_until

__all__ = ["measure"]

SCRIPT = str(Path(__file__).with_name("restart_script.py"))
_Start = Callable[[int], "Popen[bytes]"]


@dataclass
class Runs:
    """What one way of running measured of one event, run by run."""

    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)


def measure(repeats: int) -> list[dict[str, object]]:
    """Interleave both; medians of the seconds from the event to the first step of the new group.

    Rows also have ``start_cpu_s``, the median CPU seconds of a rank until its first step, and ``stages``, the
    seconds from the event until the last rank came to each stage, in the last run; by way of running.
    """
    figures = {event: {"edldist": Runs(), "plain torchrun": Runs()} for event in ("killed", "joining")}
    for _ in range(repeats):
        for name, prepare in (("edldist", _edldist), ("plain torchrun", _plain)):
            with tempfile.TemporaryDirectory() as folder, Processes(Path(folder)) as processes:
                try:
                    _events(Path(folder), processes, prepare(processes, Path(folder)), name, figures)
                except TimeoutError as exc:
                    raise TimeoutError(f"{name}: {exc}\n{_tails(Path(folder))}") from exc
    rows: list[dict[str, object]] = []
    for event, ways in figures.items():
        medians = {name: median(runs.seconds) for name, runs in ways.items()}
        rows.append(
            {
                "name": f"a student node {event}: first step",
                "edldist_s": medians["edldist"],
                "torchrun_s": medians["plain torchrun"],
                "ratio": medians["edldist"] / medians["plain torchrun"],
                "budget": 1.2,
                "runs": {name: runs.seconds for name, runs in ways.items()},
                "start_cpu_s": {name: median(runs.cpu_s) for name, runs in ways.items()},
                "stages": {name: runs.stages for name, runs in ways.items()},
            }
        )
    return rows


def _events(
    folder: Path, processes: Processes, start: _Start, name: str, figures: dict[str, dict[str, Runs]]
) -> None:
    nodes = [start(0), start(1)]
    wait_until("two nodes", lambda: _newest(folder, world=2) > 0)
    settled = time.time()
    wait_until("some steps", lambda: _newest(folder, world=2) > settled + 3)
    event = time.time()
    processes.kill_tree(nodes[0])
    _await_first(folder, event, 1, figures["killed"][name])
    settled = time.time()
    wait_until("some steps", lambda: _newest(folder, world=1) > settled + 3)
    event = time.time()
    start(2)
    _await_first(folder, event, 2, figures["joining"][name])


def _await_first(folder: Path, event: float, world: int, runs: Runs) -> None:
    """Wait for the first step of the group that follows an event, and note how it came about."""
    wait_until("the new group", lambda: any(t > event for t in _steps(folder, world)))
    runs.seconds.append(min(t for t in _steps(folder, world) if t > event) - event)

    def marks() -> dict[int, dict[str, dict[str, float]]]:
        ranks: dict[int, dict[str, dict[str, float]]] = {}
        for record in _records(folder, "marks"):
            ranks.setdefault(record["pid"], {})[record["mark"]] = record
        return {
            pid: stages for pid, stages in ranks.items() if stages.get("first step", {"t": 0.0})["t"] > event
        }

    wait_until("its marks", lambda: len(marks()) == world)
    ranks = list(marks().values())
    runs.cpu_s.append(max(stages["first step"]["cpu_s"] for stages in ranks))
    runs.stages = {mark: max(stages[mark]["t"] for stages in ranks) - event for mark in ranks[0]}


def _edldist(processes: Processes, folder: Path) -> _Start:
    address = processes.coordinator()
    teacher = ["teacher", "--coordinator", address, "--model", "edldist_benchmarks.teachers:noop"]
    processes.start("teacher", *EDLDIST, *teacher, EDLDIST_BENCH_LABEL="float32:8")

    def start(node: int) -> Popen[bytes]:
        command = ["student", "--coordinator", address, "--nnodes", "1:3", SCRIPT, str(folder)]
        return processes.start(f"node-{node}", *EDLDIST, *command, NODE=str(node))

    return start


def _plain(processes: Processes, folder: Path) -> _Start:
    port = _free_port()
    processes.start(
        "store", sys.executable, "-m", "edldist_benchmarks.plain_torchrun", "127.0.0.1", str(port)
    )

    def start(node: int) -> Popen[bytes]:
        command = plain_command(SCRIPT, [str(folder)], "1:3", f"127.0.0.1:{port}")
        return processes.start(f"node-{node}", *command, NODE=str(node), **ENVIRONMENT)

    return start


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _records(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = [line for book in folder.glob(f"{kind}-*.jsonl") for line in book.read_text().splitlines()]
    return [json.loads(line) for line in lines if line.endswith("}")]  # the last may be half written


def _steps(folder: Path, world: int) -> list[float]:
    return [record["t"] for record in _records(folder, "steps") if record["world"] == world]


def _newest(folder: Path, world: int) -> float:
    return max(_steps(folder, world), default=0.0)


def _tails(folder: Path) -> str:
    """The last words of every process, for an error."""
    return "\n".join(f"--- {log.name}\n{log.read_text()[-1500:]}" for log in sorted(folder.glob("*.log")))


if __name__ == "__main__":
    print(json.dumps(measure(int(os.environ.get("REPEATS", "3"))), indent=2))
