"""Teacher groups on devices of several kinds: every worker is where its group says, and all of them teach."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edldist_launch.contract.backend import JobState
from edldist_launch.slurm.backend import SlurmBackend
from tests.clusters.slurm.cluster import Cluster
from tests.fault.harness import wait_for

pytestmark = pytest.mark.timeout(300)

FAST, SLOW = {"n1", "n2", "n3"}, {"n4", "n5", "n6"}
"""Each has two devices, so that a worker with two has a host's to itself."""
JOB = """
name: mixed
agreement: off            # its teachers tell where they are
teachers:
  - {name: quick, model: "models:teacher", replicas: {min: 2, max: 3}}
  - {name: steady, model: "models:teacher", replicas: 2}
  - {name: either, model: "models:teacher", replicas: 2}
student: {script: student.py}
slurm:
  poll_s: 0.5
  teachers:
    quick: {gres: "accel:fast:2"}
    steady: {gres: "accel:2", constraint: slow}
    either: {gres: "accel:2", constraint: "fast|slow"}
"""
# A label is the number of the host that it comes from.
MODELS = """
import socket

def teacher():
    host = float(socket.gethostname()[1:])
    return lambda x: x * 0 + host
"""
# Learns until it has had labels of every worker.
STUDENT = """
import json, os, time
from pathlib import Path
import torch
from torch.utils.data import DataLoader, TensorDataset
import edldist

groups = ("quick", "steady", "either")
data = DataLoader(TensorDataset(torch.zeros(64, 1)), batch_size=4)
seen = {group: set() for group in groups}
with edldist.DistillLoader(data, inputs=0, teacher=groups, epochs=10_000) as loader:
    while any(len(hosts) < 2 for hosts in seen.values()):
        for batch, labels in loader:
            for group in groups:
                seen[group] |= {f"n{int(host)}" for host in labels[f"{group}/logits"].unique()}
            if edldist.should_stop():
                raise SystemExit(1)
output = Path(os.environ["EDLDIST_OUTPUT"])
(output / "seen.json").write_text(json.dumps({group: sorted(hosts) for group, hosts in seen.items()}))
while not (output / "finish").exists() and not edldist.should_stop():
    time.sleep(0.05)
"""


@pytest.mark.slow
def test_every_worker_has_the_devices_that_its_group_asks_for(cluster: Cluster, tmp_path: Path) -> None:
    for name, text in (("job.yaml", JOB), ("models.py", MODELS), ("student.py", STUDENT)):
        (tmp_path / name).write_text(text)
    output = tmp_path / "out"
    cluster.edldist("submit", "slurm", str(tmp_path / "job.yaml"), "--output", str(output))
    backend = SlurmBackend(output, slurm=cluster.slurm())

    def state() -> JobState:
        found = backend.state()
        assert found.phase in ("pending", "running"), found
        return found

    wait_for("labels of all workers", lambda: state().phase and (output / "seen.json").exists(), 150)
    hosts = {
        role.name: {process.where for process in role.processes if process.phase == "running"}
        for role in state().roles
    }
    assert hosts["quick"] < FAST and len(hosts["quick"]) == 2
    assert hosts["steady"] < SLOW and len(hosts["steady"]) == 2
    assert hosts["either"] == (FAST | SLOW) - hosts["quick"] - hosts["steady"], "one of either kind"
    seen = json.loads((output / "seen.json").read_text())
    assert seen == {group: sorted(hosts[group]) for group in ("quick", "steady", "either")}

    # One more than there are devices waits, and says for what.
    cluster.edldist("scale", "quick=3", "--output", str(output))
    waits = ("pending", "Resources")
    wait_for(
        "a worker that waits for devices",
        lambda: waits in [(process.phase, process.reason) for process in state().role("quick").processes],
        60,
    )
    # Slurm's word for it changes with whatever it looks at in the moment (None, Priority, Resources).
    wait_for(
        "status that says so",
        lambda: "Resources" in cluster.edldist("status", "--output", str(output)),
        60,
    )
    said = cluster.edldist("logs", "either", "--tail", "1", "--json", "--output", str(output)).splitlines()
    assert sorted(json.loads(line)["process"] for line in said) == ["either-0", "either-1"]
    (output / "finish").touch()
    wait_for("the end", lambda: backend.state().phase == "succeeded", 60)
