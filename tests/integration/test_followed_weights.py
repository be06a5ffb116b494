"""Teachers whose weights the student publishes: a new version between two passes, and nothing lost."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import time
from pathlib import Path

import pytest
import torch

from edldist import PublishedWeights
from edldist.errors import ModelError
from edldist.teacher.worker import TeacherWorker
from edldist.weights import followed
from edldist_launch.plan.commands import own_command
from edldist_launch.process.tie import tied_command
from tests.integration.test_missing_groups import Endless, until
from tests.integration.test_versions import check

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(followed, "LOOK_S", 0.02)
    return tmp_path / "weights"


def weights(version: int) -> dict[str, torch.Tensor]:
    return {"by": torch.tensor([float(version)], dtype=torch.float64)}


def start(job, place: Path) -> TeacherWorker:
    return job.teacher("Following", weights=f"follow:{place}", batch_size=8)


def test_workers_go_over_to_each_newer_version_and_lose_no_task(job, place):
    with PublishedWeights(place) as published:
        published.publish(weights(1))
        for _ in range(2):
            start(job, place)
        data = Endless()
        loader = job.loader(data, "id", versions=2, task_size=2, high_watermark=4)
        seen: list[int] = []

        def taken():
            for batch, labels in loader:
                check(batch, labels)
                seen.extend(batch["id"].tolist())
                yield batch, labels

        loop = taken()
        for version in range(2, 8):
            for _ in range(5):
                next(loop)
            assert published.publish(weights(version)) == version
            until(loop, lambda batch, labels, v=version: bool((labels["version"] == v).all()))
        data.ended = True
        list(loop)
    assert seen == list(range(len(seen)))
    assert loader.stats()["failed"] == 0
    while loader.stats()["teachers"] < 2:  # one that was too old for a moment is taken again
        time.sleep(0.01)
    assert loader.state_dict()["teachers"]["teacher"]["version"] == "7"


def test_damaged_and_unfit_versions_are_passed_over_and_said_once(memory_job, place, caplog):
    caplog.set_level(logging.WARNING, "edldist")
    with PublishedWeights(place) as published:
        published.publish(weights(1))
        start(memory_job, place)
        loop = iter(memory_job.loader(Endless(100_000), "id", versions=1))
        next(loop)
        published.publish({"by": torch.zeros(2, dtype=torch.float64)})
        until(loop, lambda batch, labels: "step-00000002" in caplog.text)
        for _ in range(20):
            batch, labels = next(loop)
            assert check(batch, labels).tolist() == [1] * 4
        published.publish(weights(3))
        until(loop, lambda batch, labels: bool((check(batch, labels) == 3).all()))
    assert caplog.text.count("weights step-00000002") == 1
    assert "by is torch.float64[2], and the model's torch.float64[1]" in caplog.text


def test_a_student_without_versions_refuses_newer_weights(memory_job, place):
    with PublishedWeights(place) as published:
        published.publish(weights(1))
        worker = start(memory_job, place)
        loop = iter(memory_job.loader(Endless(100_000), "id"))
        next(loop)
        published.publish(weights(2))
        while not memory_job.errors:
            worker.service.await_tasks(0.01)
    assert "version 2 instead of 1" in str(memory_job.errors.pop())


def test_a_model_that_is_no_module_cannot_follow(memory_job, place):
    with pytest.raises(ModelError, match="nobody can load newer weights into it"):
        memory_job.teacher("shifted", weights=f"follow:{place}")


MODELS = """
from torch import nn

def net():
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
"""

STUDENT = """
import sys
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset
import edldist
from models import net

torch.manual_seed(0)
torch.set_num_threads(1)
x, y = (torch.tensor(each) for each in load_digits(return_X_y=True))
x = (x / 16).float()
known = torch.arange(len(x)) < 100  # the others have no labels
train, test = slice(0, 1400), slice(1400, None)
model = net()
optimizer = torch.optim.Adam(model.parameters(), 1e-3)
average = edldist.WeightAverage(model, decay=0.95)
published = edldist.PublishedWeights(sys.argv[1])
published.publish(average.weights)
data = DataLoader(TensorDataset(x[train], y[train], known[train]), batch_size=70, shuffle=True)
seen = lambda batch: {"input": batch[0] + 0.1 * torch.randn_like(batch[0])}
loader = edldist.DistillLoader(data, seen, versions=2, high_watermark=3)
step, versions = 0, []
for epoch in range(20):
    for (batch, target, has), labels in loader:
        logits = model(batch + 0.1 * torch.randn_like(batch))
        loss = F.mse_loss(logits.softmax(-1), labels["logits"].softmax(-1))  # agree with the mean teacher
        if has.any():
            loss = loss + F.cross_entropy(logits[has], target[has])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update()
        step += 1
        versions += labels["version"].tolist()
        if step % 20 == 0:
            published.publish(average.weights)
            edldist.report(step=step, steps=400, loss=loss.item())
teacher = net()
teacher.load_state_dict(average.weights)
right = (teacher(x[test]).argmax(-1) == y[test]).float().mean().item()
edldist.report(step=step, accuracy=right, versions=len(set(versions)), newest=max(versions))
published.close()
"""

JOB = """
name: mean-teacher
teachers: [{name: teacher, model: "models:net", weights: "follow:weights", replicas: 2, device: cpu}]
student: {script: student.py, args: [weights]}
"""


@pytest.mark.slow
def test_a_mean_teacher_follows_its_student_through_a_whole_job(tmp_path: Path) -> None:
    """The teachers' weights are the moving average of the student's: digits, of which 100 have labels."""
    for name, text in (("models.py", MODELS), ("student.py", STUDENT), ("job.yaml", JOB)):
        (tmp_path / name).write_text(text)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("EDLDIST_")}
    done = subprocess.run(
        tied_command([*own_command("run"), "job.yaml", "--output", "out"], parent=os.getpid()),
        cwd=tmp_path,
        env=environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    logs = "".join(path.read_text() for path in (tmp_path / "out" / "logs").glob("*.log"))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:] + logs[-6000:]
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    metrics = result["metrics"]
    assert (result["status"], result["samples"], result["steps"]) == ("completed", 28_000, 400)
    assert result["tasks"]["failed"] == 0
    assert metrics["versions"] >= 3 and metrics["newest"] > 10, metrics
    assert metrics["accuracy"] > 0.75, metrics
