"""The test cluster is one: its hosts are told apart by everything, and it leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from edldist_launch.process.tie import tied_command
from tests.clusters.slurm.cluster import Cluster, require_slurm
from tests.fault.harness import ROOT

pytestmark = pytest.mark.timeout(300)


def test_every_host_has_a_name_an_address_processes_and_memory_of_its_own(cluster: Cluster) -> None:
    script = "echo $(hostname) $(hostname -i) $(ps ax -o args | grep -c '[s]lurmd -D') $(ls /dev/shm | wc -l)"
    said = cluster.run("srun", "-N", "6", "sh", "-c", f"touch /dev/shm/$$; sleep 0.2; {script}")
    assert sorted(said.splitlines()) == [f"n{number} 10.77.0.{number + 1} 1 1" for number in range(1, 7)]


def test_a_cluster_ends_with_whoever_made_it() -> None:
    require_slurm()
    command = [sys.executable, "-m", "tests.clusters.slurm", "sh", "-c", "echo $SLURM_CONF; exec sleep 600"]
    maker = subprocess.Popen(tied_command(command, os.getpid()), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert maker.stdout is not None
    with maker, contextlib.ExitStack() as stack:
        stack.callback(maker.kill)
        folder = Path(maker.stdout.readline().strip()).parent
        stack.callback(subprocess.run, ["rm", "-r", str(folder)], check=True)
        alive = [process for process in psutil.process_iter() if _belongs(process, folder)]
        daemons = {process.name() for process in alive}
        assert daemons >= {"slurmctld", "slurmd", "munged"}
        maker.kill()
        psutil.wait_procs(alive, timeout=20)
        left = [process for process in psutil.process_iter() if _belongs(process, folder)]
        assert left == []


def _belongs(process: psutil.Process, folder: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.environ().get("SLURM_CONF") == f"{folder}/slurm.conf"
    return False
