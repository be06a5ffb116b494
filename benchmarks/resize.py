"""A rank killed, frozen and joining where ranks go on in process, beside plain torchrun's restart.

``python -m edldist_benchmarks.resize --regroupings 100`` looks at what a rank keeps over many of them.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from typing import Any

from edldist_benchmarks.figures import Budget, Figure, Result, Settings
from edldist_benchmarks.processes import EDLDIST, Processes, wait_until
from edldist_benchmarks.restart import measure

__all__ = ["measure_resize"]

SCRIPT = str(Path(__file__).with_name("resize_script.py"))
RANKS = 2
MOST_EVENTS = 10
TTL_S = 3.0
"""After so much silence a rank is gone for the coordinator."""


class _Live:
    """Two ranks on one node, their teacher, and what they wrote down."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self._folder = folder
        address = processes.coordinator()
        teacher = ["teacher", "--coordinator", address, "--model", "edldist_benchmarks.teachers:noop"]
        processes.start("teacher", *EDLDIST, *teacher, EDLDIST_BENCH_LABEL="float32:8")
        command = ["student", "--coordinator", address, "--resize", "live", "--nproc-per-node", str(RANKS)]
        self.node: Popen[bytes] = processes.start("node", *EDLDIST, *command, SCRIPT, str(folder))

    def steps(self) -> list[dict[str, Any]]:
        """Every step that a rank took, in time."""
        lines = [line for book in self._folder.glob("steps-*") for line in book.read_text().splitlines()]
        return sorted((json.loads(line) for line in lines if line.endswith("}")), key=lambda each: each["t"])

    def await_step(self, after: float, world: int) -> dict[str, Any]:
        """The first step after a moment of a group of that size."""

        def found() -> list[dict[str, Any]]:
            return [each for each in self.steps() if each["t"] > after and each["world"] == world]

        wait_until(f"a step of {world} ranks", lambda: bool(found()))
        return found()[0]

    def settle(self) -> None:
        """Wait until all train, for a while."""
        at = self.await_step(time.time(), RANKS)["t"]
        self.await_step(at + 1.0, RANKS)

    def event(self, signum: int) -> tuple[float, float]:
        """Send a signal to a rank, and to one that is frozen SIGCONT once the other goes on.

        Returns:
            Seconds until the other's next step, and for which it stands still when the group is whole again.
        """
        self.settle()
        victim = self.steps()[-1]["pid"]
        at = time.time()
        os.kill(victim, signum)
        first = self.await_step(at, RANKS - 1)
        if signum == signal.SIGSTOP:
            time.sleep(0.5)
            os.kill(victim, signal.SIGCONT)
        again = self.await_step(first["t"], RANKS)
        before = max(each["t"] for each in self.steps() if each["t"] < again["t"])
        return first["t"] - at, again["t"] - before


def measure_resize(settings: Settings) -> Result:
    """Seconds from the event to the next step of those that are left, and of standstill at a join."""
    events = min(2 * settings.repeats, MOST_EVENTS)
    killed, frozen = (
        _run(lambda live: [live.event(signal.SIGKILL) for _ in range(events)]),
        _run(lambda live: [live.event(signal.SIGSTOP) for _ in range(max(1, events // 2))]),
    )
    torchrun = measure(min(settings.repeats, 3))
    plain = torchrun[0]["runs"]["plain torchrun"]  # type: ignore[index]
    joining = torchrun[1]["runs"]["plain torchrun"]  # type: ignore[index]
    name = "s plain torchrun"
    return Result(
        [
            Figure.median_of(
                "a rank killed: next step",
                "s",
                [gap for gap, _ in killed],
                plain,
                name,
                Budget(at_most=0.5, of="value"),
            ),
            Figure.median_of(
                "a rank frozen: next step",
                "s",
                [gap for gap, _ in frozen],
                plain,
                name,
                Budget(at_most=TTL_S + 0.3, of="value"),
            ),
            Figure.median_of(
                "a new process joins: standstill",
                "s",
                [still for _, still in killed],
                joining,
                name,
                Budget(at_most=0.3, of="value"),
            ),
            Figure.median_of(
                "a thawed rank joins: standstill", "s", [still for _, still in frozen], joining, name
            ),
        ]
    )


def _run(do: Callable[[_Live], list[tuple[float, float]]]) -> list[tuple[float, float]]:
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder)) as processes:
        live = _Live(processes, Path(folder))
        try:
            return do(live)
        except TimeoutError as exc:
            log = (Path(folder) / "node.log").read_text()[-2000:]
            raise TimeoutError(f"{exc}\n{log}") from exc


def _growth(regroupings: int) -> None:
    """Print threads, descriptors and memory of a rank that stays, over many regroupings."""

    def do(live: _Live) -> list[tuple[float, float]]:
        live.settle()
        stays, comes = sorted({each["pid"] for each in live.steps()[-10:]})
        for number in range(regroupings // 2):
            # Frozen for long enough, thawed: two regroupings, and no process that has to start.
            at = time.time()
            os.kill(comes, signal.SIGSTOP)
            first = live.await_step(at, RANKS - 1)
            os.kill(comes, signal.SIGCONT)
            live.await_step(first["t"], RANKS)
            if number % 10 == 0 or number == regroupings // 2 - 1:
                last = next(each for each in reversed(live.steps()) if each["pid"] == stays)
                status = Path(f"/proc/{stays}/status").read_text()
                memory = next(line for line in status.splitlines() if line.startswith("VmRSS"))
                print(
                    f"after {2 * (number + 1)}: {last['threads']} threads, {last['fds']} descriptors, "
                    f"{int(memory.split()[1]) / 1024:.0f} MiB",
                    flush=True,
                )
        return []

    _run(do)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--regroupings", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if options.regroupings:
        _growth(options.regroupings)
    else:
        for figure in measure_resize(Settings(options.repeats, 0.0)).figures:
            print(f"{figure.what}: {figure.value:.3f} s, plain torchrun {figure.limit or 0:.2f} s")
