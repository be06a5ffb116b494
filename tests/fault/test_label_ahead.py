"""200,000 samples are labelled ahead of time while workers, coordinator, labeller and command are killed.

Run with ``-s`` it prints the figures of docs/benchmarks.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from edldist.labeller import SCRIPT, script_file
from edldist_launch.record.eventfile import read_events
from tests.fault.harness import EDLDIST, ROOT, wait_for
from tests.label_files import check_numbers

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(1200)]

SAMPLES = 200_000
SHARD_ROWS = 8_192
DATA = "numbers, version 1"
JOB = f"""\
name: numbers
teachers: [{{model: "tests.models:identify", version: "1", batch_size: 256, replicas: 3}}]
label: {{data: "tests.models:Numbers", kwargs: {{count: {SAMPLES}}}, inputs: id, ids: index, batch_size: 256,
  shard_rows: {SHARD_ROWS}}}
store: {{path: kept, data: "{DATA}"}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def begin() -> subprocess.Popen[bytes]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("EDLDIST_")}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [*EDLDIST, "label", "job.yaml", "--output", "out"],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()  # its children are tied to it
        process.wait()


def events(folder: Path, *names: str) -> list[dict[str, Any]]:
    path = folder / "out" / "events.jsonl"
    return [event for event in read_events(path) if event["event"] in names] if path.exists() else []


def in_files(folder: Path) -> int:
    """Samples that the list of the store names: it is replaced as a whole, and lags behind nothing."""
    total = 0
    for index in (folder / "kept" / "recipes").glob("*/index.json"):
        total += sum(entry["samples"] for entry in json.loads(index.read_text())["shards"])
    return total


def ranks(job: subprocess.Popen[bytes]) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(job.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "-u" in process.cmdline()[1:2] and script_file(SCRIPT) in process.cmdline():
                found.append(process)
    return found


def kill(pid: int) -> None:
    assert psutil.pid_exists(pid), "it was gone before it could be killed"
    os.kill(pid, signal.SIGKILL)


def newest_worker(folder: Path) -> int:
    return int(events(folder, "teacher_started", "teacher_restarted")[-1]["pid"])


def first_labels_s(folder: Path, run: int) -> float:
    """Seconds from the start of a run to the first report of its labels."""
    told = events(folder, "job_started", "report")
    starts = [place for place, event in enumerate(told) if event["event"] == "job_started"]
    report = next(event for event in told[starts[run] :] if event["event"] == "report")
    return float(report["t"] - told[starts[run]]["t"])


def test_everything_is_killed_and_every_sample_is_labelled_once(
    folder: Path, start: Callable[[], subprocess.Popen[bytes]]
) -> None:
    def files_hold(shards: int) -> Callable[[], bool]:
        return lambda: in_files(folder) >= shards * SHARD_ROWS

    job = start()
    wait_for("first files", files_hold(1), 300)
    kill(newest_worker(folder))
    wait_for("the crash of a worker", lambda: events(folder, "teacher_crashed"), 60)

    wait_for("more files", files_hold(3), 300)
    kill(events(folder, "coordinator_started")[-1]["pid"])
    wait_for("another coordinator", lambda: len(events(folder, "coordinator_started")) == 2, 120)

    wait_for("more files", files_hold(5), 300)
    (rank,) = ranks(job)
    had = in_files(folder)
    kill(rank.pid)
    wait_for("another labeller", lambda: ranks(job) not in ([], [rank]), 120)
    wait_for("files of that", lambda: in_files(folder) > had, 300)

    wait_for("more files", files_hold(9), 300)
    children = psutil.Process(job.pid).children(recursive=True)
    job.kill()
    job.wait()
    psutil.wait_procs(children, 60)
    there = in_files(folder)
    assert there < SAMPLES, "it was too fast to be killed"

    began = time.monotonic()
    job = start()
    wait_for("files of the second run", lambda: in_files(folder) > there, 300)
    kill(newest_worker(folder))
    wait_for("its crash", lambda: len(events(folder, "teacher_crashed")) == 2, 60)
    assert job.wait(600) == 0, (folder / "log").read_text()[-3000:]
    wall_s = time.monotonic() - began

    check_numbers(folder / "kept", DATA, SAMPLES)
    written = json.loads((folder / "out" / "result.json").read_text())
    assert written["samples"] == SAMPLES - there, "what is in files is not asked for again"
    assert written["labels"][0]["samples"] == SAMPLES
    print(
        f"\n{there:,} of {SAMPLES:,} samples in files when the command was killed; the second run labelled "
        f"{written['samples']:,} in {wall_s:.1f} s ({written['samples_per_s']:,.0f} samples/s, "
        f"{written['worker_s']:.0f} worker-seconds); first labels after {first_labels_s(folder, 0):.1f} s "
        f"when begun, {first_labels_s(folder, 1):.1f} s when resumed"
    )
