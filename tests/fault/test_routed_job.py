"""A routed job whose teachers' workers and whose rank are killed ends with the weights of the quiet run."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import edldist
from examples.cold_items import data, models, recipe
from tests.examples.test_digits_job import EDLDIST, _Anything, result, start
from tests.fault.test_digits_exact import events
from tests.fault.test_language_model import rank_of

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(900)]

STEPS, SAVED_EVERY = 240, 20


def command(folder: Path, weights: Path) -> list[str]:
    settings = [
        *("prepare=null", "deterministic=true", f"checkpoint.every_steps={SAVED_EVERY}"),
        f"student.args=[--steps, {STEPS}]",
        *(f"teachers.{n}.weights={weights / str(n)}.safetensors" for n in range(data.CATEGORIES)),
        *(f"teachers.{n}.batch_size=32" for n in range(data.CATEGORIES)),
    ]
    options = [part for setting in settings for part in ("--set", setting)]
    return [*EDLDIST, "run", "examples/cold_items/job.yaml", "--output", str(folder), *options]


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    model = models.GraphNetwork(data.market().mature)
    with edldist.Checkpointer(folder / "checkpoints") as checkpointer:
        others = {name: _Anything() for name in ("optimizer", "schedule", "loader")}
        assert checkpointer.restore({"model": model, **others}) == STEPS
    return model.state_dict()


def test_workers_of_two_teachers_and_the_rank_are_killed(tmp_path: Path) -> None:
    for number in range(data.CATEGORIES):  # any weights will do, if each teacher has its own
        torch.manual_seed(number)
        save_file(models.teacher().state_dict(), tmp_path / f"{number}.safetensors")
    quiet, fire, log = tmp_path / "quiet", tmp_path / "fire", tmp_path / "log"
    assert start(*command(quiet, tmp_path), log=log).wait(400) == 0, log.read_text()

    job = start(*command(fire, tmp_path), log=log)
    killed: dict[str, int] = {}
    next_at = 0.0
    try:
        while job.poll() is None:
            for what, pid in due(fire, job.pid, killed):
                if time.monotonic() > next_at:
                    next_at = time.monotonic() + 1.0
                    with contextlib.suppress(ProcessLookupError):  # the job may end just now
                        os.kill(pid, signal.SIGKILL)
                        killed[what] = pid
                break
            time.sleep(0.02)
    finally:
        job.kill()  # and all that it started with it, if it runs still
    assert job.returncode == 0, log.read_text()

    assert killed.keys() == {"category-1", "student", "category-3"}
    found, expected, weights = result(fire), final_weights(quiet), final_weights(fire)
    assert (found["status"], found["steps"], found["student_restarts"]) == ("completed", STEPS, 1)
    assert found["teachers"]["lost"] >= 2 and found["tasks"]["failed"] == 0
    assert result(quiet)["samples"] == STEPS * recipe.BATCH and result(quiet)["student_restarts"] == 0
    assert expected.keys() == weights.keys()
    assert all(torch.equal(expected[name], weights[name]) for name in expected)

    # It might have been killed behind its last step: then it comes to its end without another one.
    (fire / "result.json").unlink()
    assert start(*command(fire, tmp_path), log=log).wait(250) == 0, log.read_text()
    again = final_weights(fire)
    assert (
        result(fire)["metrics"].keys() >= {"cold_auc", "warm_auc"} and result(fire)["student_restarts"] == 0
    )
    assert all(torch.equal(again[name], weights[name]) for name in weights)


def due(folder: Path, job: int, killed: dict[str, int]) -> Iterator[tuple[str, int]]:
    """Whom to kill next: a worker of one teacher, then the rank, then a worker of another teacher.

    Each two checkpoints after the one before: then there is something to go on from, and something to lose.
    """
    if len(events(folder, "checkpoint_saved")) < 2 * (len(killed) + 1):
        return
    workers = {event["id"]: event["pid"] for event in events(folder, "teacher_started")}
    if "category-1" not in killed:
        yield "category-1", workers["category-1-0"]
    elif "student" not in killed:
        yield "student", rank_of(job, "cold_items/student.py")
    elif "category-3" not in killed:
        yield "category-3", workers["category-3-0"]
