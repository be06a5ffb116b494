"""The digits job with a worker killed every few seconds ends with the weights of the quiet run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.examples.test_digits_job import final_weights, result, run_job, start

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(300)]

EPOCHS = 40
KILL_EVERY_S = 2.0


def events(folder: Path, *names: str) -> list[dict]:
    path = folder / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("}")]
    return [event for event in found if event["event"] in names]


def test_digits_under_fire_ends_with_the_weights_of_the_quiet_run(tmp_path: Path) -> None:
    build = tmp_path / "build"
    settings = (f"student.args=[--epochs, {EPOCHS}]", "teachers.0.replicas=3")
    quiet, fire = tmp_path / "quiet", tmp_path / "fire"
    log = tmp_path / "log"
    assert start(*run_job(quiet, build, *settings), log=log).wait(140) == 0, log.read_text()

    job = start(*run_job(fire, build, *settings), log=log)
    killed: set[int] = set()
    next_kill = 0.0
    while job.poll() is None:
        begun = events(fire, "checkpoint_saved")
        workers = [event["pid"] for event in events(fire, "teacher_started", "teacher_restarted")]
        alive = [pid for pid in workers if pid not in killed]
        if begun and len(alive) > 1 and time.monotonic() > next_kill:
            next_kill = time.monotonic() + KILL_EVERY_S
            with contextlib.suppress(ProcessLookupError):  # the job may end just now
                os.kill(alive[0], signal.SIGKILL)
                killed.add(alive[0])
        time.sleep(0.02)
    assert job.returncode == 0, log.read_text()

    assert len(killed) >= 2, "too few workers were killed to prove anything"
    assert result(fire)["tasks"]["requeued"] > 0
    assert result(fire)["steps"] == result(quiet)["steps"] == EPOCHS * 19
    expected, found = final_weights(quiet, EPOCHS * 19), final_weights(fire, EPOCHS * 19)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
