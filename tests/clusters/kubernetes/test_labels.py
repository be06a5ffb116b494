"""A data set labelled ahead of time on a real Kubernetes, and a job that trains from these labels alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edldist_launch.contract.backend import JobState
from edldist_launch.kubernetes.backend import KubernetesBackend
from tests.clusters.kubernetes.cluster import IMAGE, Cluster
from tests.fault.harness import EDLDIST, ROOT, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SPACE, CLAIM = "labels", "digits-labels-output"
EPOCHS, DRAWS = 3, 1198
WITHIN_S = 900.0
JOB = f"""
name: digits
prepare: {{script: examples/digits/prepare.py, args: [--teacher-epochs, 2]}}
teachers:
  - name: teacher
    model: paced:teacher
    kwargs: {{hurry: /job/examples/digits/build/hurry}}
    weights: examples/digits/build/teacher.safetensors
    replicas: 2
student:
  script: examples/digits/student.py
  args: [--epochs, {EPOCHS}, --batch-size, 64]
label: {{data: "examples.digits.labels:draws", kwargs: {{epochs: {EPOCHS}}}, inputs: image, shard_rows: 256}}
store: {{path: labels}}
coordinator: {{heartbeat_ttl_s: 20}}  # two CPUs carry the whole cluster
kubernetes:
  namespace: {SPACE}
  image: {IMAGE}
  pull_policy: Never
  volumes: [{{path: /job/examples/digits/build, sub_path: build, read_only: false}}]
"""


class Job:
    """One submission."""

    def __init__(self, file: Path, output: Path) -> None:
        self.file = file
        self.output = output
        self.backend = KubernetesBackend(output)

    def submit(self, *options: str) -> None:
        edldist("submit", "k8s", str(self.file), "--output", str(self.output), *options)

    def await_end(self) -> JobState:
        def ended() -> bool:
            return self.backend.state().phase in ("succeeded", "failed")

        wait_for("the end", ended, WITHIN_S)
        return self.backend.state()

    def running(self, role: str) -> list[str]:
        processes = self.backend.state().role(role).processes
        return [process.id for process in processes if process.phase == "running"]


def edldist(*words: str) -> str:
    done = subprocess.run([*EDLDIST, *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def volume(cluster: Cluster) -> Path:
    return cluster.room(SPACE, CLAIM)


@pytest.fixture
def jobs(volume: Path, tmp_path: Path) -> Iterator[tuple[Job, Job]]:
    file = tmp_path / "job.yaml"
    file.write_text(JOB)
    both = Job(file, tmp_path / "labels"), Job(file, tmp_path / "training")
    yield both
    for job in both:
        if job.output.exists():
            edldist("stop", "--output", str(job.output), "--grace-s", "1")


def test_labels_that_pods_have_made_are_all_that_a_job_learns_from(
    jobs: tuple[Job, Job], volume: Path, cluster: Cluster
) -> None:
    labels, training = jobs
    labels.submit("--labels")

    def in_files() -> int:
        found = volume.glob("labels/recipes/*/index.json")
        return sum(entry["samples"] for index in found for entry in json.loads(index.read_text())["shards"])

    # The labeller's pod is deleted: what it had is in files, and its successor asks for the rest.
    wait_for("first files", lambda: in_files() >= 256, WITHIN_S)
    (victim,) = labels.running("student")
    cluster.kubectl("--namespace", SPACE, "delete", "pod", victim, "--wait=false")
    wait_for("another labeller", lambda: labels.running("student") not in ([], [victim]), WITHIN_S)
    there = in_files()
    assert there < EPOCHS * DRAWS, "it was too fast to be deleted"
    (volume / "digits-labels-build" / "hurry").touch()
    assert labels.await_end().phase == "succeeded", labels.backend.state()
    assert in_files() == EPOCHS * DRAWS
    result = json.loads((volume / "digits-labels" / "result.json").read_text())
    assert result["status"] == "completed", result
    said = edldist("label", "--verify", str(volume / "labels"), str(labels.file))
    print(f"{there:,} samples in files when its pod was deleted, {EPOCHS * DRAWS:,} in the end. {said}")
    edldist("stop", "--output", str(labels.output))

    training.submit("--set", f"kubernetes.claim={CLAIM}", "--set", "store.only=true", "--set", "prepare=null")
    assert training.await_end().phase == "succeeded", training.backend.state()
    assert "teacher" not in {role.name for role in training.backend.state().roles}
    result = json.loads((volume / "digits" / "result.json").read_text())
    assert (result["status"], result["epochs"], result["samples"]) == ("completed", EPOCHS, EPOCHS * DRAWS)
    assert (result["metrics"]["lost"], result["metrics"]["repeated"]) == (0, 0), result
    assert result["tasks"]["done"] == 0, "every label was there"
