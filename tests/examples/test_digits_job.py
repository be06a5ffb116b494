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
import torch

import edldist
from edldist_launch.process.tie import tied_command
from examples.digits import recipe
from examples.digits.models import student
from examples.digits.variants import train_variant

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


class _Anything:
    """Takes what the checkpoint holds beside the model."""

    def __init__(self) -> None:
        self.state: dict = {}

    def state_dict(self) -> dict:
        return self.state

    def load_state_dict(self, state: dict) -> None:
        self.state = state


def final_weights(folder: Path, steps: int) -> dict[str, torch.Tensor]:
    """The student's weights in the job's last checkpoint, which is of that step."""
    model = student()
    with edldist.Checkpointer(folder / "checkpoints") as checkpointer:
        others = {name: _Anything() for name in ("optimizer", "scheduler", "loader", "census")}
        assert checkpointer.restore({"model": model, **others}) == steps
    return model.state_dict()


@pytest.fixture(autouse=True)
def in_the_foreground() -> Iterator[None]:
    """Jobs heed Ctrl-C as in a terminal, even if these tests run in the background, where it is ignored."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("build")


@pytest.mark.slow
def test_an_interrupted_job_resumes_and_ends_with_the_same_steps(tmp_path: Path, build: Path) -> None:
    """On two ranks, which see disjoint parts of each global batch."""
    folder, log = tmp_path / "out", tmp_path / "log"
    command = run_job(folder, build, "student.args=[--epochs, 10]", "student.nproc_per_node=2")
    job = start(*command, log=log)
    deadline = time.monotonic() + 300  # on a fresh machine the teacher is trained first
    while not _reported(folder, step=40):
        assert job.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    job.send_signal(signal.SIGINT)
    assert job.wait(60) == 130, log.read_text()
    stopped = result(folder)
    assert stopped["status"] == "interrupted"
    assert 40 <= stopped["steps"] < 190

    assert start(*command, log=log).wait(300) == 0, log.read_text()
    done = result(folder)
    assert (done["status"], done["steps"], done["epochs"]) == ("completed", 10 * 19, 10)
    assert {"accuracy", "plain_accuracy", "teacher_accuracy"} <= done["metrics"].keys()
    assert (done["metrics"]["lost"], done["metrics"]["repeated"]) == (0, 0)
    # Each sample once, over both runs and ranks; what was computed beyond the checkpoint was not.
    assert stopped["samples"] + done["samples"] == 10 * 1198
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    restored = [event["step"] for event in events if event["event"] == "checkpoint_restored"]
    assert restored == [stopped["steps"]]
    assert (folder / "curves.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_job_trains_the_very_student_that_the_sweep_trains_in_one_process(
    tmp_path: Path, build: Path
) -> None:
    """Else the table over seeds would say nothing about the job."""
    folder, log = tmp_path / "out", tmp_path / "log"
    arguments = ["--epochs", "2", "--seed", "3"]
    job = start(*run_job(folder, build, f"student.args={json.dumps(arguments)}"), log=log)
    assert job.wait(300) == 0, log.read_text()
    args = recipe.options(None).parse_args(arguments)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model, accuracies = train_variant("distilled", args, build / "teacher.safetensors")
    finally:
        torch.set_num_threads(threads)
    assert result(folder)["metrics"]["accuracy"] == accuracies[-1]
    expected, found = model.state_dict(), final_weights(folder, steps=2 * 19)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.slow
def test_the_demo_kills_a_worker_lets_one_join_and_counts_every_sample(tmp_path: Path, build: Path) -> None:
    folder, log = tmp_path / "demo", tmp_path / "log"
    job = run_job(folder, build, "student.args=[--epochs, 15]")
    settings = job[job.index("--output") + 2 :]
    demo = start(sys.executable, "examples/digits/demo.py", "--output", str(folder), *settings, log=log)
    assert demo.wait(400) == 0, log.read_text()
    said, done = log.read_text(), result(folder)
    assert "which is worker teacher-" in said and "guest, is started by hand" in said
    assert done["teachers"]["joined"] == 4 and done["teachers"]["lost"] == 1, said
    # How many tasks the killed worker held is a matter of the moment; that each was given back is not.
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    given_back = sum(event["tasks"] for event in events if event["event"] == "task_requeued")
    assert done["tasks"]["requeued"] == given_back
    assert "killed, guest joined" in said
    assert "17,970 counted in the training loop: 0 lost, 0 repeated" in said
    for name in ("comparison.png", "curves.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert "did not leave" not in said, "the coordinator waited for somebody"


@pytest.mark.slow
def test_the_demo_that_is_interrupted_ends_its_job_which_can_go_on(tmp_path: Path, build: Path) -> None:
    folder, log = tmp_path / "demo", tmp_path / "log"
    job = run_job(folder, build, "student.args=[--epochs, 30]")
    settings = job[job.index("--output") + 2 :]
    demo = start(sys.executable, "examples/digits/demo.py", "--output", str(folder), *settings, log=log)
    deadline = time.monotonic() + 200
    while not _reported(folder, step=40):
        assert demo.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    os.killpg(demo.pid, signal.SIGINT)  # as a terminal does
    assert demo.wait(60) == 130, log.read_text()
    assert result(folder)["status"] == "interrupted"
    assert not (folder / "comparison.png").exists()


@pytest.mark.slow
def test_the_roles_start_by_hand_in_any_order_under_bare_torchrun(tmp_path: Path, build: Path) -> None:
    prepare = [sys.executable, "examples/digits/prepare.py", "--teacher-epochs", "1", "--build", str(build)]
    log = tmp_path / "log"
    assert start(*prepare, "--epochs", "1", log=log, EDLDIST_OUTPUT=str(tmp_path)).wait(120) == 0, (
        log.read_text()
    )
    ready = tmp_path / "ready.json"
    where = ("--bind", "tcp://127.0.0.1:0", "--address-file", str(ready))
    first = start(*EDLDIST, "coordinator", *where, log=log)
    try:
        _await(ready, log)
        address = json.loads(ready.read_text())["address"]
    finally:
        first.terminate()
        assert first.wait(10) == 143
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
        assert coordinator.wait(10) == 143
    assert codes == [143, 143], log.read_text()


def _reported(folder: Path, step: int) -> bool:
    events = folder / "events.jsonl"
    if not events.exists():
        return False
    steps = [json.loads(line).get("step") for line in events.read_text().splitlines() if '"report"' in line]
    return any(isinstance(number, int) and number >= step for number in steps)


def _await(path: Path, log: Path) -> None:
    deadline = time.monotonic() + 90
    while not path.exists():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
