"""A file of weights that changes while a job is interrupted."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from edldist_launch.plan.commands import own_command
from edldist_launch.record.eventfile import read_events
from tests.integration.launching import until

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]

JOB = """
name: toy
teachers: [{model: 'models:teacher', weights: teacher.pt, replicas: 1}]
student: {script: student.py}
"""
MODELS = """
import torch
def teacher():
    return torch.nn.Linear(2, 1, bias=False)
"""
STUDENT = """
import time
import edldist, torch
from torch.utils.data import DataLoader

class Seen:
    sums = []
    def state_dict(self):
        return {"sums": list(self.sums)}
    def load_state_dict(self, state):
        self.sums = state["sums"]

loader = edldist.DistillLoader(DataLoader(torch.ones(12, 2), batch_size=2))
seen, checkpointer = Seen(), edldist.Checkpointer()
state = {"loader": loader, "seen": seen}
begins = checkpointer.restore(state) is None
for batch, labels in loader:
    seen.sums.append(labels["logits"].sum().item())
    if begins and len(seen.sums) == 3:
        checkpointer.save(3, state, wait=True)
        while not edldist.should_stop():
            time.sleep(0.02)
        raise SystemExit(0)
edldist.report(step=6, before=seen.sums[2], after=seen.sums[3], steps=len(seen.sums))
checkpointer.close()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("job.yaml", JOB), ("models.py", MODELS), ("student.py", STUDENT)):
        (tmp_path / name).write_text(text)
    return tmp_path


def write_weights(folder: Path, value: float) -> None:
    torch.save({"weight": torch.full((1, 2), value)}, folder / "teacher.pt")


def begin(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = own_command("run", "job.yaml", "--output", "out", *options)
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ran(folder: Path, *options: str) -> tuple[int, str]:
    run = begin(folder, *options)
    said, _ = run.communicate(timeout=150)
    return run.returncode, said


def interrupted_at_step_3(folder: Path) -> None:
    run = begin(folder)
    try:
        until(lambda: "checkpoint_saved" in happened(folder), timeout_s=100)
        run.send_signal(signal.SIGTERM)
        said, _ = run.communicate(timeout=150)
    finally:
        run.kill()
    assert run.returncode == 130, said


def happened(folder: Path) -> list[str]:
    path = folder / "out" / "events.jsonl"
    return [event["event"] for event in read_events(path)] if path.exists() else []


def result(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "out" / "result.json").read_text())
    return document


def test_weights_that_changed_meanwhile_are_refused_until_somebody_wants_them(folder: Path) -> None:
    write_weights(folder, 1.0)
    interrupted_at_step_3(folder)
    write_weights(folder, 2.0)

    code, said = ran(folder)
    assert code == 1
    said = " ".join(said.split())
    assert re.search("for the checkpoint from which .* weights [0-9a-f]{32} instead of [0-9a-f]{32}", said)
    assert "give --extend to 'edldist run'" in said
    assert result(folder)["status"] == "failed"

    code, said = ran(folder, "--extend")
    assert code == 0, said
    assert result(folder)["metrics"] == {"before": 4.0, "after": 8.0}
    assert re.search(
        "weights .* instead of .*; going on with it", (folder / "out/logs/student-0.log").read_text()
    )


def test_weights_that_are_the_same_are_gone_on_with(folder: Path) -> None:
    write_weights(folder, 1.0)
    interrupted_at_step_3(folder)
    write_weights(folder, 1.0)
    code, said = ran(folder)
    assert code == 0, said
    assert result(folder)["metrics"] == {"before": 4.0, "after": 4.0}
