"""Student pods that go on in process: one is deleted, the other takes the next step, and a third joins."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edldist_launch.kubernetes.backend import KubernetesBackend
from tests.clusters.kubernetes.cluster import IMAGE, Cluster
from tests.clusters.kubernetes.live import BATCH, EPOCHS, SAMPLES
from tests.fault.harness import EDLDIST, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SPACE = "live"
WITHIN_S = 600.0
JOB = f"""
name: live
teachers: [{{model: "models:teacher"}}]
student: {{script: /job/live.py, nnodes: "1:2", resize: live}}
coordinator: {{heartbeat_ttl_s: 20}}  # two CPUs carry the whole cluster
checkpoint: {{every_steps: 20}}
kubernetes: {{namespace: {SPACE}, image: {IMAGE}, pull_policy: Never}}
"""


class Story:
    """The job, and the steps that its ranks took."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.volume = cluster.room(SPACE, "live-output")
        self.output = folder / "out"
        self.folder = folder
        self.backend = KubernetesBackend(self.output)
        (folder / "job.yaml").write_text(JOB)

    def edldist(self, *words: str) -> None:
        command = [*EDLDIST, *words, "--output", str(self.output)]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr

    def steps(self) -> list[dict[str, Any]]:
        """All steps of all ranks, in time."""
        lines = [
            line
            for book in (self.volume / "live").glob("steps-*.jsonl")
            for line in book.read_text().splitlines(keepends=True)
        ]
        taken = [json.loads(line) for line in lines if line.endswith("\n")]
        return sorted(taken, key=lambda each: float(each["t"]))

    def await_world(self, world: int, after: float) -> dict[str, Any]:
        """The first step of a group of that size after a moment."""

        def found() -> list[dict[str, Any]]:
            return [each for each in self.steps() if each["world"] == world and each["t"] > after]

        first: dict[str, Any] = wait_for(f"a step of {world} ranks", found, WITHIN_S)[0]
        return first


@pytest.fixture
def story(cluster: Cluster, tmp_path: Path) -> Iterator[Story]:
    told = Story(cluster, tmp_path)
    yield told
    told.edldist("stop", "--grace-s", "1")


def test_a_deleted_node_holds_nobody_up(story: Story, cluster: Cluster) -> None:
    story.edldist("submit", "k8s", "job.yaml")
    both = story.await_world(2, 0.0)

    def pods() -> list[str]:
        return sorted({each["pod"] for each in story.steps() if each["world"] == 2})

    # Each writes down its part of a step by itself, a moment before or after the other.
    victim, survivor = wait_for("both to have written", lambda: len(found := pods()) == 2 and found, WITHIN_S)
    (pid,) = {each["pid"] for each in story.steps() if each["pod"] == survivor}
    cluster.kubectl("--namespace", SPACE, "delete", "pod", victim, "--wait=false")
    alone = story.await_world(1, both["t"])
    before = [each["t"] for each in story.steps() if each["t"] < alone["t"]][-1]
    assert alone["pod"] == survivor
    again = story.await_world(2, alone["t"])
    print(f"alone after {alone['t'] - before:.2f} s, two again {again['t'] - alone['t']:.1f} s later")

    (story.volume / "live" / "hurry").touch()
    wait_for("the end", lambda: story.backend.state().phase in ("succeeded", "failed"), WITHIN_S)
    assert story.backend.state().phase == "succeeded", story.backend.state()
    steps = story.steps()
    assert {each["pid"] for each in steps if each["pod"] == survivor} == {pid}, "it was started again"
    assert {each["step"] for each in steps} == set(range(1, EPOCHS * SAMPLES // BATCH + 1))
    counted = Counter((each["epoch"], sample) for each in steps for sample in each["ids"])
    assert set(counted.values()) == {1}, "a sample came twice in an epoch"
    # Who leaves may be gone before it has written down its part of a step that both have taken.
    written = Counter(each["step"] for each in steps for _ in each["ids"])
    short = {step for step, samples in written.items() if samples < BATCH}
    assert len(short) <= 1 and all(each["world"] == 2 for each in steps if each["step"] in short)
