"""``edldist tune`` as a process: real coordinator and trials, stand-ins for teachers and student scripts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edldist_launch.record.eventfile import read_events
from tests.integration.launching import WAIT

# Tunes a job with stand-ins: the teacher is a one-line program, the student a script of the test's.
STAND_INS = """
import sys
from pathlib import Path
from edldist.errors import ConfigError, EdlDistError
from edldist_launch.plan import commands
from edldist_launch.tune.tuning import run_tuning
teacher, student, trials, quiet = sys.argv[1:5]
commands.teacher_command = lambda *given: [sys.executable, "-c", teacher]
commands.student_command = lambda launcher, config, *given: [sys.executable, "-c", student, *config.args]
try:
    files = Path("job.yaml"), [], Path("space.yaml")
    sys.exit(run_tuning(*files, int(trials), Path("out"), quiet=quiet == "quiet"))
except EdlDistError as exc:
    print(f"error: {exc}")
    sys.exit(2)
"""
# Reports ten steps. The best rate is 0.03. Waits where a file `hold-TRIAL` says so, and fails in mode `bad`.
STUDENT = """
import math, os, pathlib, signal, sys, time
from edldist.observe import reporter
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
number = int(os.environ["EDLDIST_JOB"].rpartition("-")[2])
with open("starts", "a") as starts:
    starts.write(f"{number}\\n")
if given["--mode"] == "bad":
    sys.exit("error: no such mode")
output = pathlib.Path(os.environ["EDLDIST_OUTPUT"])
asked = []
signal.signal(signal.SIGTERM, lambda *a: asked.append(1))
reach = 0.8 - 0.1 * math.log10(float(given["--lr"]) / 0.03) ** 2
for step in range(1, 11):
    reporter.report(step=step, steps=10, accuracy=reach * step / 10, seed=int(given["--seed"]))
    while (step == 5 and pathlib.Path(f"hold-{number}").exists() and not asked):
        time.sleep(0.02)
    if asked:
        reporter.flush()
        sys.exit(143)
reporter.flush()
"""
JOB = """
name: toy
teachers: [{model: 'a:b', replicas: 1}]
student: {script: s.py, args: [--lr, 0.01, --mode, good, --seed, 7]}
"""
SPACE = """
keys: {--lr: {low: 0.001, high: 0.1, log: true}, --mode: {choices: [good, also]}}
objective: {metric: accuracy, goal: max}
seed: --seed
at_a_time: 2
window: 3
"""

__all__ = [
    "JOB",
    "SPACE",
    "STUDENT",
    "Start",
    "folder",
    "pids",
    "start",
    "starts",
    "states",
    "trial_events",
    "tune_json",
]

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "s.py").write_text("")
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def begin(
        trials: int = 6, teacher: str = WAIT, student: str = STUDENT, quiet: bool = False
    ) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-c", STAND_INS, teacher, student, str(trials), "quiet" if quiet else ""],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()  # its children are tied to it
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def tune_json(folder: Path) -> dict[str, Any]:
    path = folder / "out" / "tune.json"
    document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"trials": []}
    return document


def states(folder: Path) -> list[str]:
    return [trial["state"] for trial in tune_json(folder)["trials"]]


def starts(folder: Path) -> Counter[int]:
    path = folder / "starts"
    return Counter(map(int, path.read_text().split())) if path.exists() else Counter()


def pids(folder: Path) -> list[int]:
    """Of every child that the tuning and its trials recorded."""
    return [
        event["pid"]
        for path in (folder / "out").rglob("events.jsonl")
        for event in read_events(path)
        if event["event"] in ("coordinator_started", "teacher_started", "student_started")
    ]


def trial_events(folder: Path, trial: int) -> list[dict[str, Any]]:
    path = folder / "out" / "trials" / f"{trial:04d}" / "events.jsonl"
    return list(read_events(path)) if path.exists() else []
