"""What docs/clusters.md says of Kubernetes, followed word for word: its commands, and the answers it shows.

From nothing to a job that runs, to its end, to its removal. What a reader sets for his own cluster
is set here for this one. The image is built, pushed and pulled.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pytest

from edldist_launch.kubernetes.backend import KubernetesBackend
from tests.clusters.kubernetes.cluster import REGISTRY, Cluster
from tests.clusters.page import COMMANDS, blocks, pattern, steps
from tests.fault.harness import ROOT, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SPACE, CLAIM = "walk", "toy-output"
IMAGE = f"{REGISTRY}/me/toy:1"
TRAINING_IMAGES = 1397
WITHIN_S = 900.0
SETTING = re.compile(r"export (\w+)=.*")


class Reader:
    """Who follows the page on this cluster, in a folder with a clone of the project.

    Args:
        cluster: with the storage that the page asks for.
        folder: an empty one.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.here = folder / "clone"
        self.here.symlink_to(ROOT)
        options = subprocess.run(
            [str(ROOT / "tests/clusters/podman/options.sh")], capture_output=True, text=True, timeout=600
        )
        assert options.returncode == 0, options.stderr
        self.own = {
            "DOCKER": "podman",
            "BUILD_OPTIONS": " ".join(options.stdout.split()),
            "IMAGE": IMAGE,
            "NAMESPACE": SPACE,
        }
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "OMP_NUM_THREADS": "1",
        }

    @cached_property
    def backend(self) -> KubernetesBackend:
        """The job's, once it is submitted."""
        return KubernetesBackend(self.here / "out" / "toy")

    def follow(self, command: str, shown: list[str]) -> None:
        """Do what a command of the page says; it prints what the page shows."""
        if command.startswith("cd "):
            self.here = Path(os.path.normpath(self.here / command.removeprefix("cd ")))
        elif setting := SETTING.fullmatch(command):
            self.environment[setting[1]] = self.own.pop(setting[1])
        else:
            begun = time.monotonic()
            done = subprocess.run(
                ["sh", "-c", command],
                cwd=self.here,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=WITHIN_S,
            )
            print(f"{time.monotonic() - begun:5.1f} s  {command.splitlines()[0]}")
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            for line in shown:
                assert re.search(pattern(line), done.stdout, re.MULTILINE), (command, done.stdout)

    def look_at(self, command: str) -> None:
        """See what the page says of the job at this point, before a command, or wait for it."""
        state = self.backend.state
        if command == "edldist status":
            wait_for("the job", lambda: state().phase == "running", WITHIN_S)
        elif command == "edldist scale teacher=auto":
            wait_for("two workers", lambda: state().role("teacher").count("running") == 2, WITHIN_S)
        elif command.startswith("edldist stop"):
            job = json.loads(self.kubectl("get", "job", "toy-student", "--output", "json"))
            true = [each["type"] for each in job["status"]["conditions"] if each["status"] == "True"]
            assert true == ["Complete"], job["status"]

    def kubectl(self, *words: str) -> str:
        return self.cluster.kubectl("--namespace", SPACE, *words)


@pytest.fixture
def reader(cluster: Cluster, tmp_path: Path) -> Iterator[Reader]:
    cluster.room(SPACE, CLAIM)
    made = Reader(cluster, tmp_path)
    yield made
    cluster.kubectl("delete", "namespace", SPACE, "--wait=false")
    podman = ["podman", "rmi", "--ignore", IMAGE, "localhost/edldist:latest"]
    subprocess.run(podman, check=True, capture_output=True, timeout=60)


def test_the_page_can_be_followed_word_for_word(reader: Reader) -> None:
    followed = 0
    for kind, block in blocks("Kubernetes", until="How this page is tested"):
        for command, shown in steps(block) if kind == COMMANDS else ():
            if (reader.here / "out" / "toy" / "submission.json").exists():
                reader.look_at(command)
            reader.follow(command, shown)
            followed += 1
    assert followed > 25 and not reader.own

    result = json.loads((reader.here / "toy-results" / "result.json").read_text())
    assert result["status"] == "completed", result
    assert result["samples"] == result["epochs"] * TRAINING_IMAGES, result
    print(f"{result['samples']} samples in {result['epochs']} epochs, each counted once")
    kinds = "all,secrets,configmaps,persistentvolumeclaims,networkpolicies,poddisruptionbudgets"
    wait_for("an empty namespace", lambda: not self_made(reader, kinds), WITHIN_S)


def self_made(reader: Reader, kinds: str) -> list[str]:
    """What there is in the namespace, but for what Kubernetes puts into each."""
    names = reader.kubectl("get", kinds, "--output", "name").split()
    return [name for name in names if name != "configmap/kube-root-ca.crt" and "default-token" not in name]
