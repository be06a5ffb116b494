"""The language model under fire ends with the weights of the quiet run, whatever its labels look like."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import save_file

import edldist
from examples.lm import models
from tests.examples.test_digits_job import EDLDIST, _Anything, result, start
from tests.fault.test_digits_exact import events

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(600)]

STEPS, SAVED_EVERY = 120, 20
WEIGHTS = Path(models.__file__).parent / "build" / "teacher.safetensors"


@pytest.fixture(scope="module", autouse=True)
def weights() -> Iterator[None]:
    """Any will do, and stay where the example looks for them only while this runs."""
    made = not WEIGHTS.exists()
    if made:
        torch.manual_seed(0)
        WEIGHTS.parent.mkdir(exist_ok=True)
        save_file(models.teacher().state_dict(), WEIGHTS)
    yield
    if made:
        WEIGHTS.unlink()


def command(folder: Path, codec: str) -> list[str]:
    output = "hidden" if codec == "hidden" else "logits"
    settings = (
        *("prepare=null", "deterministic=true", "teachers.0.replicas=3", "teachers.0.batch_size=8"),
        *(f"teachers.0.codec={codec}", f"teachers.0.outputs=[{output}]"),
        *(f"checkpoint.every_steps={SAVED_EVERY}", f"student.args=[--steps, {STEPS}]"),
    )
    options = [part for setting in settings for part in ("--set", setting)]
    return [*EDLDIST, "run", "examples/lm/job.yaml", "--output", str(folder), *options]


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    model = models.student()
    with edldist.Checkpointer(folder / "checkpoints") as checkpointer:
        others = {name: _Anything() for name in ("optimizer", "schedule", "loader")}
        assert checkpointer.restore({"model": model, **others}) == STEPS
    return model.state_dict()


@pytest.mark.parametrize("codec", ["topk:32", "head+rs:8:12", "hidden"])
def test_workers_die_and_freeze_and_the_student_is_killed(tmp_path: Path, codec: str) -> None:
    quiet, fire, log = tmp_path / "quiet", tmp_path / "fire", tmp_path / "log"
    assert start(*command(quiet, codec), log=log).wait(250) == 0, log.read_text()

    job = start(*command(fire, codec), log=log)
    done: set[tuple[str, int]] = set()
    next_at = 0.0
    try:
        while job.poll() is None:
            for kind, pid in due(fire, job.pid, done):
                if time.monotonic() > next_at:
                    next_at = time.monotonic() + 2.0
                    with contextlib.suppress(ProcessLookupError):  # the job may end just now
                        os.kill(pid, signal.SIGSTOP if kind == "freeze" else signal.SIGKILL)
                        done.add((kind, pid))
            time.sleep(0.02)
    finally:
        job.kill()  # and all that it started with it, if it runs still
    assert job.returncode == 0, log.read_text()

    kinds = [kind for kind, _ in done]
    assert kinds.count("kill") >= 2 and kinds.count("freeze") == kinds.count("student") == 1, done
    found = result(fire)
    assert (found["steps"], found["student_restarts"]) == (STEPS, 1) and found["tasks"]["requeued"] > 0
    expected, weights = final_weights(quiet), final_weights(fire)
    assert expected.keys() == weights.keys()
    assert all(torch.equal(expected[name], weights[name]) for name in expected)


def due(folder: Path, job: int, done: set[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """What is done to whom, after a checkpoint: a worker frozen, then a rank killed, then workers killed."""
    hurt = {pid for _, pid in done}
    kinds = {kind for kind, _ in done}
    workers = [event["pid"] for event in events(folder, "teacher_started", "teacher_restarted")]
    alive = [pid for pid in workers if pid not in hurt]
    if not events(folder, "checkpoint_saved") or len(alive) < 2:
        return
    if "freeze" not in kinds:
        yield "freeze", alive[0]
    elif "student" not in kinds:
        yield "student", rank_of(job, "lm/student.py")
    else:
        yield "kill", alive[0]


def rank_of(job: int, script: str) -> int:
    """The process that trains: the last in the line of those that were started with its script."""
    children = psutil.Process(job).children(recursive=True)
    running = {child.pid for child in children if any(script in word for word in child.cmdline())}
    parents = {child.ppid() for child in children if child.pid in running}
    return min(running - parents)
