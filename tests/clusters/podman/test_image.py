"""The project's image: it builds, starts as an ordinary user on a disk it cannot write, and ends in order.

podman here is old and this kernel's limits are not its own to raise: containers get explicit ones.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

HERE = Path(__file__).parent
IMAGE = "localhost/edldist:test"
WITHIN_S = 90.0
LIMITED = ("--ulimit", "nproc=4096:4096", "--ulimit", "nofile=4096:4096")
LOCKED = ("--read-only", "--network", "none", "--cap-drop", "all", "--security-opt", "no-new-privileges")
ASK = (
    "import urllib.request as u; print(u.urlopen('http://127.0.0.1:7071/healthz', timeout=5).read().decode())"
)
ORPHANS = "for each in 1 2 3; do (sleep 0.1 &) ; done; sleep 0.5"
ZOMBIES = "cat /proc/[0-9]*/stat | grep -c ') Z ' || true"


def podman(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["podman", "--runtime", "runc", *words], capture_output=True, text=True, timeout=WITHIN_S
    )
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def image() -> str:
    for tool in ("podman", "runc", "debootstrap"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}: apt-get install podman runc containernetworking-plugins debootstrap")
    if os.geteuid() != 0:
        pytest.skip("making a base image takes root")
    done = subprocess.run(
        [str(HERE / "build.sh"), IMAGE, "examples"], capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stderr
    return IMAGE


@pytest.fixture
def coordinator(image: str) -> Iterator[str]:
    """A container that runs one."""
    command = ("coordinator", "--bind", "tcp://*:7070", "--http", "*:7071", "--insecure")
    name = podman("run", "--detach", *LIMITED, *LOCKED, image, *command).stdout.strip()
    yield name
    podman("rm", "--force", name)


def test_it_knows_its_version_and_holds_the_examples(image: str) -> None:
    assert "edldist, version" in podman("run", "--rm", *LIMITED, *LOCKED, image, "--version").stdout
    words = ("run", "--rm", *LIMITED, *LOCKED, "--entrypoint", "sh", image, "-c")
    said = podman(*words, "id -u; id -g; pwd; ls examples/digits/job.yaml; touch /job/x 2>&1 || true").stdout
    assert said.split("\n")[:4] == ["1000", "1000", "/job", "examples/digits/job.yaml"]
    assert "Read-only file system" in said


def test_its_layers_are_parted_by_what_changes_them(image: str) -> None:
    layers = json.loads(podman("history", "--format", "json", image).stdout)
    sizes = sorted((layer["size"] for layer in layers), reverse=True)
    needs, base, own, *_ = sizes
    assert needs > 50 * own and own < 20_000_000, "code alone is small to pull again"
    assert base < 300_000_000


def test_it_serves_reaps_and_ends_when_asked(coordinator: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while (asked := podman("exec", coordinator, "python", "-c", ASK, check=False)).stdout.strip() != "ok":
        assert time.monotonic() < deadline, podman("logs", coordinator).stderr
        time.sleep(0.5)
    assert asked.returncode == 0
    podman("exec", coordinator, "sh", "-c", ORPHANS)
    assert podman("exec", coordinator, "sh", "-c", ZOMBIES).stdout.strip() == "0"
    begun = time.monotonic()
    podman("stop", "--time", "60", coordinator)
    assert time.monotonic() - begun < 45, "it was killed"
    state = podman("inspect", "--format", "{{.State.ExitCode}}", coordinator).stdout.strip()
    assert state in ("0", "143")
