"""A host that Slurm takes down while it lives ends nobody's work: somebody starts it again."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path

import pytest

from edldist_launch.contract.backend import JobState, ProcessState
from edldist_launch.slurm.attempts import Attempts
from edldist_launch.slurm.backend import SlurmBackend
from edldist_launch.slurm.layout import Layout
from tests.clusters.slurm.cluster import Cluster
from tests.fault.harness import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

# Slurm brings nobody back by itself: the job's placer has to.
JOB = """
name: taken
teachers: [{name: teacher, model: "models:teacher", replicas: 1}]
student: {script: student.py}
slurm:
  poll_s: 0.5
  requeue: false
  teachers: {teacher: {constraint: fast}}
  student: {constraint: slow}
"""
MODELS = """
def teacher():
    return lambda x: 2 * x
"""
# Learns until it is told that it may end, and leaves as it should where it is asked to.
STUDENT = """
import os
from pathlib import Path
import torch
from torch.utils.data import DataLoader, TensorDataset
import edldist

output = Path(os.environ["EDLDIST_OUTPUT"])
data = DataLoader(TensorDataset(torch.ones(64, 1)), batch_size=4)
with edldist.DistillLoader(data, inputs=0, epochs=1_000_000) as loader:
    while not (output / "finish").exists():
        for batch, labels in loader:
            (output / "learns").touch()
            if edldist.should_stop():
                raise SystemExit(0)
            if (output / "finish").exists():
                break
"""


def test_a_student_whose_host_is_taken_down_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    for name, text in (("job.yaml", JOB), ("models.py", MODELS), ("student.py", STUDENT)):
        (tmp_path / name).write_text(text)
    output = tmp_path / "out"
    cluster.edldist("submit", "slurm", str(tmp_path / "job.yaml"), "--output", str(output))
    backend = SlurmBackend(output, slurm=cluster.slurm())
    attempts = Attempts(Layout("taken", output))

    def state() -> JobState:
        found = backend.state()
        assert found.phase in ("pending", "running"), found
        return found

    def student() -> ProcessState | None:
        running = [each for each in state().role("student").processes if each.phase == "running"]
        return running[0] if running else None

    wait_for("a student that learns", lambda: student() and (output / "learns").exists(), 150)
    first = student()
    assert first is not None
    (output / "learns").unlink()
    cluster.run("scontrol", "update", f"nodename={first.where}", "state=down", "reason=test")
    try:
        wait_for("another attempt", lambda: state().phase and attempts.count(first.id) >= 2, 120)
        wait_for("one that learns", lambda: student() and (output / "learns").exists(), 120)
        (output / "finish").touch()
        wait_for("the end", lambda: backend.state().phase == "succeeded", 90)
        assert json.loads((output / "result.json").read_text())["status"] == "completed"
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):  # its daemon lives, and has told so
            cluster.run("scontrol", "update", f"nodename={first.where}", "state=resume")
        cluster.await_hosts()
