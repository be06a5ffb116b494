"""A cluster to try things on: ``EDLDIST_KUBERNETES=FOLDER python -m tests.clusters.kubernetes [COMMAND...]``.

The command's ``kubectl`` reaches the cluster, in which namespace ``lab`` has a volume for a claim
``toy-output``; without one it is a shell. The cluster ends with it.
"""

from __future__ import annotations

import os
import subprocess
import sys

from edldist_launch.process.tie import tied_command
from tests.clusters.kubernetes.cluster import shared_cluster


def main() -> int:
    with shared_cluster().chosen() as cluster:
        cluster.room("lab", "toy-output")
        command = sys.argv[1:] or [os.environ.get("SHELL", "/bin/sh")]
        return subprocess.run(tied_command(command, os.getpid()), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
