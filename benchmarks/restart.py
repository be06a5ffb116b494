"""A student node killed, and one joining: time to the next step, against plain torchrun doing the same.

Plain torchrun gets what edldist gives it: a store outside of the nodes, short time-outs, and ranks
that die with their agent. Without these it does not survive at all.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

from benchmarks.processes import EDLDIST, ROOT, Processes, wait_until
from launch.torchrun import prepare_environment, torchrun_command

__all__ = ["measure"]

SCRIPT = str(ROOT / "benchmarks" / "restart_script.py")
_Start = Callable[[int], "Popen[bytes]"]


def measure(repeats: int) -> list[dict[str, object]]:
    """Interleave both; medians of the seconds from the event to the first step of the new group."""
    figures: dict[str, dict[str, list[float]]] = {"killed": {}, "joining": {}}
    for _ in range(repeats):
        for name, prepare in (("edldist", _edldist), ("plain torchrun", _plain)):
            with tempfile.TemporaryDirectory() as folder, Processes(Path(folder)) as processes:
                killed_s, joining_s = _events(Path(folder), processes, prepare(processes, Path(folder)))
            figures["killed"].setdefault(name, []).append(killed_s)
            figures["joining"].setdefault(name, []).append(joining_s)
    rows: list[dict[str, object]] = []
    for event, runs in figures.items():
        medians = {name: sorted(values)[len(values) // 2] for name, values in runs.items()}
        rows.append(
            {
                "name": f"a student node {event}: first step",
                "edldist_s": medians["edldist"],
                "torchrun_s": medians["plain torchrun"],
                "ratio": medians["edldist"] / medians["plain torchrun"],
                "budget": 1.2,
                "runs": runs,
            }
        )
    return rows


def _events(folder: Path, processes: Processes, start: _Start) -> tuple[float, float]:
    nodes = [start(0), start(1)]
    wait_until("two nodes", lambda: _newest(folder, world=2) > 0)
    settled = time.time()
    wait_until("some steps", lambda: _newest(folder, world=2) > settled + 3)
    event = time.time()
    processes.kill_tree(nodes[0])
    wait_until("the survivor", lambda: _first_after(folder, event, world=1) is not None)
    killed_s = (_first_after(folder, event, world=1) or 0.0) - event
    settled = time.time()
    wait_until("some steps", lambda: _newest(folder, world=1) > settled + 3)
    event = time.time()
    start(2)
    wait_until("the newcomer", lambda: _first_after(folder, event, world=2) is not None)
    return killed_s, (_first_after(folder, event, world=2) or 0.0) - event


def _edldist(processes: Processes, folder: Path) -> _Start:
    address = processes.coordinator()
    teacher = ["teacher", "--coordinator", address, "--model", "benchmarks.teachers:noop"]
    processes.start("teacher", *EDLDIST, *teacher, EDLDIST_BENCH_LABEL="float32:8")

    def start(node: int) -> Popen[bytes]:
        command = ["student", "--coordinator", address, "--nnodes", "1:3", SCRIPT, str(folder)]
        return processes.start(f"node-{node}", *EDLDIST, *command, NODE=str(node))

    return start


def _plain(processes: Processes, folder: Path) -> _Start:
    address = processes.coordinator()
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    store = f"{host}:{int(port) + 2}"
    store_module = [sys.executable, "-m", "edldist.coordinator.rendezvous"]
    processes.start("store", *store_module, "--address", store, "--coordinator", address)
    environment: dict[str, str] = {}
    prepare_environment(environment)

    def start(node: int) -> Popen[bytes]:
        command = torchrun_command(SCRIPT, [str(folder)], nnodes="1:3", rendezvous=store)
        return processes.start(f"node-{node}", *command, NODE=str(node), **environment)

    return start


def _steps(folder: Path, world: int) -> list[float]:
    found = []
    for book in folder.glob("steps-*.jsonl"):
        for line in book.read_text().splitlines():
            if line.endswith("}"):
                record = json.loads(line)
                if record["world"] == world:
                    found.append(record["t"])
    return found


def _newest(folder: Path, world: int) -> float:
    return max(_steps(folder, world), default=0.0)


def _first_after(folder: Path, event: float, world: int) -> float | None:
    return min((t for t in _steps(folder, world) if t > event), default=None)


if __name__ == "__main__":
    print(json.dumps(measure(int(os.environ.get("REPEATS", "3"))), indent=2))
