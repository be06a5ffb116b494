"""Workers and the rank of the early ranker are killed: it ends with the weights of the quiet run."""

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
from examples.early_ranker import models
from tests.examples.test_digits_job import EDLDIST, _Anything, result, start
from tests.fault.test_digits_exact import events

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(600)]

STEPS, SAVED_EVERY = 400, 40


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Any will do: what the late ranker says has to be the same, not right."""
    torch.manual_seed(0)
    path = tmp_path / "late.safetensors"
    save_file(models.late_ranker().state_dict(), path)
    return path


def command(folder: Path, weights: Path) -> list[str]:
    settings = (
        *("prepare=null", "deterministic=true", "teachers.0.replicas=3", "teachers.0.batch_size=16"),
        *(f"teachers.0.weights={weights}", f"checkpoint.every_steps={SAVED_EVERY}"),
        f"student.args=[--steps, {STEPS}, --candidates, 20]",
    )
    options = [part for setting in settings for part in ("--set", setting)]
    return [*EDLDIST, "run", "examples/early_ranker/job.yaml", "--output", str(folder), *options]


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    model = models.early_ranker()
    with edldist.Checkpointer(folder / "checkpoints") as checkpointer:
        others = {name: _Anything() for name in ("optimizer", "teachers")}
        assert checkpointer.restore({"model": model, **others}) == STEPS
    return model.state_dict()


def test_workers_die_and_the_student_is_killed(tmp_path: Path, weights: Path) -> None:
    quiet, fire, log = tmp_path / "quiet", tmp_path / "fire", tmp_path / "log"
    assert start(*command(quiet, weights), log=log).wait(250) == 0, log.read_text()

    job = start(*command(fire, weights), log=log)
    done: set[tuple[str, int]] = set()
    try:
        while job.poll() is None:
            for kind, pid in due(fire, job.pid, done):
                with contextlib.suppress(ProcessLookupError):  # the job may end just now
                    os.kill(pid, signal.SIGKILL)
                    done.add((kind, pid))
            time.sleep(0.02)
    finally:
        job.kill()  # and all that it started with it, if it runs still
    assert job.returncode == 0, log.read_text()

    assert sorted(kind for kind, _ in done) == ["student", "worker", "worker"], done
    found = result(fire)
    assert (found["steps"], found["student_restarts"]) == (STEPS, 1)
    assert found["teachers"]["lost"] >= 2
    assert found["metrics"]["staleness"] == 0
    expected, weights_now = final_weights(quiet), final_weights(fire)
    assert all(torch.equal(expected[name], weights_now[name]) for name in expected)


def due(folder: Path, job: int, done: set[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """Who is killed, after a checkpoint: a worker, the rank, and after the next checkpoint another worker."""
    kinds = [kind for kind, _ in done]
    saved = len(events(folder, "checkpoint_saved"))
    workers = [event["pid"] for event in events(folder, "teacher_started", "teacher_restarted")]
    alive = [pid for pid in workers if pid not in {pid for _, pid in done}]
    if "worker" not in kinds and saved >= 1 and alive:
        yield "worker", alive[0]
    elif "student" not in kinds and saved >= 2:
        yield "student", rank_of(job)
    elif kinds.count("worker") == 1 and events(folder, "checkpoint_restored") and alive:
        yield "worker", alive[0]


def rank_of(job: int) -> int:
    """The process that trains: the last in the line of those that were started with its script."""
    children = psutil.Process(job).children(recursive=True)
    script = "early_ranker/student.py"
    running = {child.pid for child in children if any(script in word for word in child.cmdline())}
    parents = {child.ppid() for child in children if child.pid in running}
    return min(running - parents)
