"""The digits job, whole, at toy size: run, interrupt, resume, two ranks, and by hand in any order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edldist_launch.child import tied_command

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]
EDLDIST = [sys.executable, str(ROOT / "launch" / "__main__.py")]
TINY = "prepare.args=[--teacher-epochs, 1, --build, {build}]"


def start(*command: str, log: Path, **env: str) -> subprocess.Popen[bytes]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EDLDIST_")}
    with log.open("ab") as out:
        return subprocess.Popen(
            tied_command(list(command), parent=os.getpid()),
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | env,
            cwd=ROOT,
            start_new_session=True,
        )


def run_job(folder: Path, build: Path, *settings: str) -> list[str]:
    weights = f"teachers.0.weights={build / 'teacher.safetensors'}"
    options = [
        part for setting in (TINY.format(build=build), weights, *settings) for part in ("--set", setting)
    ]
    return [*EDLDIST, "run", "examples/digits/job.yaml", "--output", str(folder), *options]


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(autouse=True)
def in_the_foreground() -> Iterator[None]:
    """Jobs heed Ctrl-C as in a terminal, even if these tests run in the background, where it is ignored."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("build")


def test_an_interrupted_job_resumes_and_ends_with_the_same_steps(tmp_path: Path, build: Path) -> None:
    """On two ranks, which see disjoint parts of each global batch."""
    folder, log = tmp_path / "out", tmp_path / "log"
    command = run_job(folder, build, "student.args=[--epochs, 20]", "student.nproc_per_node=2")
    job = start(*command, log=log)
    deadline = time.monotonic() + 300  # on a fresh machine the teacher is trained first
    while not _reported(folder, step=40):
        assert job.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    job.send_signal(signal.SIGINT)
    assert job.wait(60) == 130, log.read_text()
    stopped = result(folder)
    assert stopped["status"] == "interrupted"
    assert 40 <= stopped["steps"] < 380

    assert start(*command, log=log).wait(300) == 0, log.read_text()
    done = result(folder)
    assert (done["status"], done["steps"], done["epochs"]) == ("completed", 20 * 19, 20)
    assert {"accuracy", "plain_accuracy", "teacher_accuracy"} <= done["metrics"].keys()
    # Each sample once, over both runs and ranks; what was computed beyond the checkpoint was not.
    assert stopped["samples"] + done["samples"] == 20 * 1198
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    restored = [event["step"] for event in events if event["event"] == "checkpoint_restored"]
    assert restored == [stopped["steps"]]
    assert (folder / "curves.png").stat().st_size > 10_000


def test_the_roles_start_by_hand_in_any_order_under_bare_torchrun(tmp_path: Path, build: Path) -> None:
    prepare = [sys.executable, "examples/digits/prepare.py", "--teacher-epochs", "1", "--build", str(build)]
    log = tmp_path / "log"
    assert start(*prepare, "--epochs", "1", log=log, EDLDIST_OUTPUT=str(tmp_path)).wait(120) == 0, (
        log.read_text()
    )
    ready = tmp_path / "ready.json"
    first = start(*EDLDIST, "coordinator", "--bind", "tcp://127.0.0.1:0", "--ready-file", str(ready), log=log)
    try:
        _await(ready, log)
        address = json.loads(ready.read_text())["address"]
    finally:
        first.terminate()
        assert first.wait(10) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1"]
    student = start(
        *(*torchrun, "examples/digits/student.py", "--epochs", "2"),
        log=log,
        EDLDIST_COORDINATOR=address,
        EDLDIST_OUTPUT=str(tmp_path),
    )
    model = ["--model", "examples.digits.models:teacher", "--weights", str(build / "teacher.safetensors")]
    teachers = [start(*EDLDIST, "teacher", "--coordinator", address, *model, log=log) for _ in range(2)]
    coordinator = start(*EDLDIST, "coordinator", "--bind", address, "--http", "127.0.0.1:0", log=log)
    try:
        assert student.wait(120) == 0, log.read_text()
    finally:
        for role in teachers:
            role.terminate()
        codes = [role.wait(30) for role in teachers]
        coordinator.terminate()
        assert coordinator.wait(10) == 0
    assert codes == [0, 0], log.read_text()


def _reported(folder: Path, step: int) -> bool:
    events = folder / "events.jsonl"
    if not events.exists():
        return False
    steps = [json.loads(line).get("step") for line in events.read_text().splitlines() if '"report"' in line]
    return any(isinstance(number, int) and number >= step for number in steps)


def _await(path: Path, log: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
