"""The digits job on a real Kubernetes: all that happens to pods happens to it, and every sample counts once.

One job, one story: starting Kubernetes and the job costs more than each of its chapters.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edldist_launch.contract.backend import JobState
from edldist_launch.kubernetes.backend import KubernetesBackend
from examples.digits.data import splits
from tests.clusters.kubernetes.cluster import IMAGE, Cluster
from tests.fault.harness import EDLDIST, ROOT, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

SPACE = "lab"
EPOCHS = 20
WITHIN_S = 900.0
JOB = f"""
name: digits
prepare: {{script: examples/digits/prepare.py, args: [--teacher-epochs, 2]}}
teachers:
  - name: teacher
    model: paced:teacher
    kwargs: {{hurry: /job/examples/digits/build/hurry}}
    weights: examples/digits/build/teacher.safetensors
    replicas: {{min: 1, max: 3}}
student:
  script: examples/digits/student.py
  args: [--epochs, {EPOCHS}, --batch-size, 64]
  nnodes: "1:2"
checkpoint: {{every_steps: 10}}
coordinator: {{heartbeat_ttl_s: 20}}  # two CPUs carry the whole cluster
kubernetes:
  namespace: {SPACE}
  image: {IMAGE}
  pull_policy: Never
  autoscaler: keda
  volumes: [{{path: /job/examples/digits/build, sub_path: build, read_only: false}}]
"""
"""What the digits example asks for, with a teacher that is slow until it is told to hurry."""


class Story:
    """The job, as a person sees it who has ``kubectl``."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.output = folder / "out"
        self.volume = cluster.room(SPACE, "digits-output")
        self.job = folder / "job.yaml"
        self.job.write_text(JOB)
        self.backend = KubernetesBackend(self.output)

    def edldist(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [*EDLDIST, *words], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def kubectl(self, *words: str) -> str:
        return self.cluster.kubectl("--namespace", SPACE, *words)

    def found(self, kind: str, name: str = "") -> Any:
        return json.loads(self.kubectl("get", kind, *([name] if name else []), "--output", "json"))

    def deployments(self) -> list[str]:
        return [each["metadata"]["name"] for each in self.found("deployments")["items"]]

    def until(self, what: str, reached: Callable[[JobState], bool], timeout_s: float = WITHIN_S) -> None:
        """Wait for a state of the job."""

        def look() -> bool:
            state: JobState = self.backend.state()
            assert state.phase not in ("failed", "succeeded"), f"{what}: {state}"
            return bool(reached(state))

        wait_for(what, look, timeout_s)

    def running(self, role: str) -> list[str]:
        """The pods of a role that run, by name."""
        processes = self.backend.state().role(role).processes
        return sorted(process.id for process in processes if process.phase == "running")

    def await_running(self, teachers: int, students: int = 2) -> None:
        def there(state: JobState) -> bool:
            return (
                state.role("teacher").count("running", "leaving"),
                state.role("student").count("running", "leaving"),
            ) == (teachers, students)

        self.until(f"{teachers} workers and {students} nodes", there)

    def events(self) -> list[dict[str, Any]]:
        path = self.volume / "digits" / "events.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def happened(self, event: str, **about: object) -> bool:
        return any(
            each["event"] == event and all(each.get(key) == value for key, value in about.items())
            for each in self.events()
        )

    def await_event(self, event: str, **about: object) -> None:
        self.until(f"{event} {about}", lambda state: self.happened(event, **about))

    def steps(self) -> int:
        return max((each["step"] for each in self.events() if each["event"] == "progress"), default=0)

    def await_steps(self, more: int = 3) -> None:
        target = self.steps() + more
        self.until(f"step {target}", lambda state: self.steps() >= target)

    def is_ready(self, pod: str) -> bool:
        conditions = self.found("pod", pod)["status"]["conditions"]
        return any((each["type"], each["status"]) == ("Ready", "True") for each in conditions)

    def restarts(self, *roles: str) -> dict[str, int]:
        return {
            process.id: process.restarts
            for role in roles
            for process in self.backend.state().role(role).processes
            if process.phase == "running"
        }


@pytest.fixture
def story(cluster: Cluster, tmp_path: Path) -> Iterator[Story]:
    told = Story(cluster, tmp_path)
    yield told
    told.edldist("stop", "--output", str(told.output), "--grace-s", "1")


def test_what_happens_to_pods_costs_no_sample(story: Story, cluster: Cluster) -> None:
    out = ("--output", str(story.output))
    submit = ("submit", "k8s", str(story.job), *out)
    story.edldist(*submit, "--dry-run")
    assert "is handed over" in story.edldist(*submit)
    print("what this Kubernetes lacks:", *sorted(set(cluster.converted.read_text().splitlines())), sep="\n  ")
    assert "a job runs in" in story.edldist(*submit, code=1)

    # The real autoscaler acts on the real figure: the slow workers leave two students waiting.
    story.await_running(3)
    story.await_steps()
    scaler = story.found("hpa", "digits-teacher")
    assert scaler["status"]["desiredReplicas"] == 3, scaler["status"]

    # A person holds another number.
    story.edldist("scale", "teacher=2", *out)
    story.await_running(2)
    story.await_steps()
    assert "held" in story.edldist("status", *out)

    # A worker's pod is deleted: it gives back what it holds, and another comes.
    victim, survivor = story.running("teacher")
    story.kubectl("delete", "pod", victim, "--wait=false")
    story.await_event("teacher_left", id=victim)
    story.await_running(2)
    story.await_steps()

    # A node's pod is deleted: it saves, and another goes on.
    victim = story.running("student")[0]
    story.kubectl("delete", "pod", victim, "--wait=false")
    story.until("another node", lambda state: victim not in story.running("student"))
    story.await_running(2)
    story.await_steps()

    # The coordinator's pod is deleted: nobody else starts anew.
    before = story.restarts("teacher", "student")
    (victim,) = story.running("coordinator")
    story.kubectl("delete", "pod", victim, "--wait=false")
    story.until("another coordinator", lambda state: story.running("coordinator") not in ([], [victim]))
    story.await_steps()
    assert story.restarts("teacher", "student") == before

    # One frozen worker thaws while it is only not ready, one is started again.
    thawed, lost = story.running("teacher")
    cluster.signal(thawed, SPACE, "SIGSTOP")
    wait_for("a probe that fails", lambda: not story.is_ready(thawed), WITHIN_S)
    cluster.signal(thawed, SPACE, "SIGCONT")
    wait_for("a probe that recovers", lambda: story.is_ready(thawed), WITHIN_S)
    cluster.signal(lost, SPACE, "SIGSTOP")
    story.until("a restart", lambda state: story.restarts("teacher").get(lost) == 1)
    wait_for("a ready worker", lambda: story.is_ready(lost), WITHIN_S)
    assert story.restarts("teacher") == {thawed: 0, lost: 1}
    story.await_steps()

    # The autoscaler takes over again.
    story.edldist("scale", "teacher=auto", *out)
    story.await_running(3)

    (story.volume / "digits-build" / "hurry").touch()
    wait_for("the end", lambda: story.backend.state().phase in ("succeeded", "failed"), WITHIN_S)
    state = story.backend.state()
    assert state.phase == "succeeded", state
    conditions = story.found("job", "digits-student")["status"]["conditions"]
    assert [each["type"] for each in conditions if each["status"] == "True"] == ["Complete"]
    result = json.loads((story.volume / "digits" / "result.json").read_text())
    assert (result["status"], result["epochs"]) == ("completed", EPOCHS), result
    assert (result["metrics"]["lost"], result["metrics"]["repeated"]) == (0, 0)
    # After a replacement of who counts; where ranks share a batch unevenly, one gets some twice.
    assert result["samples"] >= EPOCHS * len(splits(0)[0]), result

    # Workers go at once, what tells of the job stays.
    wait_for("the workers' end", lambda: story.deployments() == ["digits-coordinator"], WITHIN_S)
    assert "samples: 0 lost" in story.edldist("logs", "student", *out)
    assert "succeeded" in story.edldist("status", *out)

    assert "succeeded" in story.edldist("stop", *out)
    kinds = "pods,jobs,deployments,services,secrets,configmaps,hpa,scaledobjects,poddisruptionbudgets"
    assert story.kubectl("get", kinds, "--selector", "edldist/job=digits", "--output", "name") == ""
    assert "digits-output" in story.kubectl("get", "persistentvolumeclaims", "--output", "name")
    assert "succeeded" in story.edldist("status", *out)
