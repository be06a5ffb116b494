"""The stream of new users under fire: workers and the rank are killed while the teacher is replaced."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import edldist
from examples.streaming_users import models, recipe
from examples.streaming_users.ledger import Ledger
from examples.streaming_users.nights import LAST_NIGHT, weights_of
from tests.examples.test_digits_job import _Anything, result, start
from tests.examples.test_streaming_users import AnyStream
from tests.fault.test_digits_exact import events
from tests.fault.test_language_model import rank_of

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(400)]

OFFLINE, DAY, STEPS = 60, 200, 1060
"""The last day is long, so that its teacher gets to label some of it however fast the steps are."""


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """Teachers of all nights, whom nobody has trained: each of them says other things than the others."""
    folder = tmp_path / "build"
    folder.mkdir()
    for night in range(LAST_NIGHT + 1):
        torch.manual_seed(night)
        model = models.Teacher()
        model.night.fill_(night)
        save_file(model.state_dict(), weights_of(night, folder))
    return folder


def test_workers_and_the_rank_are_killed_in_the_stream(tmp_path: Path, build: Path) -> None:
    """Each arrival counts once, with labels of the versions that may label.

    The script itself refuses a label that another version has computed than it says, and one that is older
    than the two newest (``ledger``), over the restart too: its ledger is in the checkpoint.
    """
    args = ["--build", build, "--offline-steps", OFFLINE, "--day-steps", DAY, "--steps", STEPS]
    settings = (
        *("prepare=null", "checkpoint.every_steps=20", "teachers.0.replicas=3"),
        f"student.args={[str(each) for each in args]}",
    )
    options = [part for setting in settings for part in ("--set", setting)]
    folder, log = tmp_path / "out", tmp_path / "log"
    job = start(
        *(sys.executable, "launch/__main__.py", "run", "examples/streaming_users/job.yaml"),
        *("--output", str(folder), *options),
        log=log,
    )
    # By the last checkpoint: who is killed then.
    due = [
        (OFFLINE + 20, "worker"),
        (OFFLINE + DAY - 20, "worker"),  # about when night 1 is published
        (OFFLINE + DAY + 40, "rank"),
        (OFFLINE + 2 * DAY + 20, "worker"),
    ]
    killed: dict[int, str] = {}
    try:
        while job.poll() is None:
            saved = max((event["step"] for event in events(folder, "checkpoint_saved")), default=0)
            if due and saved >= due[0][0]:
                kind = due[0][1]
                workers = [event["pid"] for event in events(folder, "teacher_joined")]
                alive = [pid for pid in workers if pid not in killed]
                victims = alive if kind == "worker" else [rank_of(job.pid, "streaming_users/student.py")]
                if len(alive) > 1:
                    os.kill(victims[0], signal.SIGKILL)
                    killed[victims[0]] = kind
                    due.pop(0)
            time.sleep(0.02)
    finally:
        job.kill()
        job.wait()
    assert job.returncode == 0, log.read_text()
    assert sorted(killed.values()) == ["rank", "worker", "worker", "worker"]

    found = result(folder)
    assert (found["status"], found["steps"], found["student_restarts"]) == ("completed", STEPS, 1)
    assert found["teachers"]["lost"] >= 3
    metrics = found["metrics"]
    assert (metrics["lost"], metrics["repeated"], metrics["newest_version"]) == (0, 0, LAST_NIGHT + 1)
    ledger = Ledger(recipe.BATCH)
    with edldist.Checkpointer(folder / "checkpoints") as checkpointer:
        others = {"model": _Anything(), "optimizer": _Anything(), "loader": AnyStream()}
        assert checkpointer.restore({"ledger": ledger, **others}) == STEPS
    assert ledger.rank_state_dict()["expected"] == STEPS * recipe.BATCH
    places = sorted(path.name for path in (folder / "weights").glob("step-*"))
    assert places == ["step-00000002", "step-00000003"], "a night was published twice"
