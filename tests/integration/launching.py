"""``edldist run`` as a process, with stand-ins for teachers and students, for tests of the launcher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from edldist_launch.record.eventfile import read_events

__all__ = [
    "IGNORE_TERM",
    "SAVE_ON_TERM",
    "WAIT",
    "Start",
    "all_up",
    "events",
    "folder",
    "pids",
    "result",
    "running",
    "start",
    "until",
    "until_ready",
]

# Runs a job with stand-ins: the teachers and the student are one-line programs (no text: a real student).
STAND_INS = """
import os
import sys
from pathlib import Path
from edldist.errors import ConfigError
from edldist.observe.streams import install_steady_streams
from edldist_launch.job import run, teachers
from edldist_launch.job.run import run_job
from edldist_launch.plan import commands
teachers.UNREADY_STARTS = 2
teachers.DRAIN_GRACE_S = float(os.environ.get("GRACE_S", 40))
if room := os.environ.get("ROOM"):
    run.most_processes = lambda: int(room)
install_steady_streams()
teacher, student = sys.argv[1:3]
commands.teacher_command = lambda *given: [sys.executable, "-c", teacher]
if student:
    commands.student_command = lambda *given: [sys.executable, "-c", student]
if os.environ.get("NODES"):  # tell the student's nodes which they are
    from edldist_launch.job.nodes import StudentNodes
    make = StudentNodes._make
    def numbered(nodes, name, attempt):
        child = make(nodes, name, attempt)
        child.environment["NODE"] = name
        return child
    StudentNodes._make = numbered
try:
    said = os.environ.get
    job, output = said("JOB", "job.yaml"), said("OUTPUT", "out")
    sys.exit(run_job(Path(job), [], Path(output), said("BEGINNING") or "resume"))
except ConfigError as exc:
    print(f"error: {exc}")
    sys.exit(2)
"""
WAIT = "import time; time.sleep(60)"
SAVE_ON_TERM = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *a: (print("saved", flush=True), sys.exit(1)))
print("ready", flush=True)
time.sleep(60)
"""
IGNORE_TERM = SAVE_ON_TERM.replace('lambda *a: (print("saved", flush=True), sys.exit(1))', "signal.SIG_IGN")

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job.yaml").write_text(
        "name: toy\nteachers: [{model: 'a:b', replicas: 2}]\nstudent: {script: s.py}\n"
    )
    (tmp_path / "s.py").write_text("")
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def begin(teacher: str = WAIT, student: str | None = WAIT, **changes: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **changes.pop("env", {})}
        settings = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **changes}
        process = subprocess.Popen(
            [sys.executable, "-c", STAND_INS, teacher, student or ""], cwd=folder, env=environment, **settings
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()  # its children are tied to it
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def until(condition: Callable[[], Any], timeout_s: float = 90.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "the awaited state did not come"
        time.sleep(0.02)
    return value


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / "out" / "events.jsonl"
    return [event for event in read_events(path) if event["event"] == name] if path.exists() else []


def pids(folder: Path) -> list[int]:
    """Of every child that the run recorded."""
    names = ("coordinator_started", "teacher_started", "teacher_restarted", "student_started")
    return [event["pid"] for name in names for event in events(folder, name)]


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def all_up(folder: Path) -> Callable[[], bool]:
    def up() -> bool:
        return all(events(folder, name) for name in ("student_started", "coordinator_started"))

    return up


def until_ready(folder: Path, name: str = "student-0") -> Path:
    """The log of a stand-in, once it says that its signal handler is in place."""
    log = folder / "out" / "logs" / f"{name}.log"
    until(lambda: log.exists() and log.read_text().endswith("ready\n"))
    return log


def result(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "out" / "result.json").read_text())
    return document
