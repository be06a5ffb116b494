"""A cluster to try things on: ``python -m tests.clusters.slurm [COMMAND...]``.

The command runs on its submit host; without one it is a shell. The cluster ends with it.
"""

from __future__ import annotations

import os
import subprocess
import sys

from edldist_launch.process.tie import tied_command
from tests.clusters.slurm.cluster import slurm_cluster


def main() -> int:
    with slurm_cluster() as cluster:
        command = cluster.command(*(sys.argv[1:] or [os.environ.get("SHELL", "/bin/sh")]))
        tied = tied_command(command, os.getpid())
        return subprocess.run(tied, env=cluster.environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
