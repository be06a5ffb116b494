"""What docs/clusters.md says of Slurm, followed word for word: its commands, and the answers it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edldist_launch.record.earlier import last_checkpoint
from edldist_launch.slurm.backend import SlurmBackend
from tests.clusters.page import COMMANDS, blocks, pattern, steps
from tests.clusters.slurm.cluster import Cluster
from tests.fault.harness import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_page_can_be_followed_word_for_word(cluster: Cluster, tmp_path: Path) -> None:
    here = tmp_path
    environment = cluster.environment | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "OMP_NUM_THREADS": "1",
    }
    followed = 0
    try:
        for kind, block in blocks("Slurm", until="Preemption"):
            if kind == "yaml":
                with (here / "job.yaml").open("a") as job:
                    job.write(block)
            for command, shown in steps(block) if kind == COMMANDS else ():
                if command.startswith("cd "):
                    here /= command.removeprefix("cd ")
                    continue
                done = subprocess.run(
                    [*cluster.machines["ctl"].place, "env", f"--chdir={here}", "sh", "-c", command],
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=200,
                )
                assert done.returncode == 0, (command, done.stdout, done.stderr)
                for line in shown:
                    assert re.search(pattern(line), done.stdout, re.MULTILINE), (command, done.stdout)
                followed += 1
                if "submit" in command:  # as a reader does, who looks at it for a while
                    output = here / "out" / "toy"
                    state = SlurmBackend(output, slurm=cluster.slurm()).state
                    wait_for("the job", lambda state=state: state().phase == "running", 150)
                    wait_for("a checkpoint", lambda output=output: last_checkpoint(output) is not None, 150)
        assert followed > 10
        assert (here / "out" / "toy" / "result.json").exists()
        assert not cluster.run("squeue", "-h", "-a").strip()
    finally:
        if (here / "out" / "toy" / "submission.json").exists():
            SlurmBackend(here / "out" / "toy", slurm=cluster.slurm()).stop(0.0)
