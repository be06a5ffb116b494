"""The cluster that the tests of this folder share, without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fault.harness import ROOT

pytestmark = pytest.mark.timeout(120)

PROGRAM = """
from tests.clusters.kubernetes import cluster

class Made:
    def __init__(self, folder):
        self.folder = folder

    def close(self):
        print("closed, with a folder" if self.folder.exists() else "closed, without its folder", self.folder)

cluster.require_kubernetes = lambda: None
cluster.Cluster = Made
assert cluster.shared_cluster() is cluster.shared_cluster()
"""


def test_a_cluster_ends_with_its_process_and_before_its_folder() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    said, _, folder = done.stdout.strip().rpartition(" ")
    assert said == "closed, with a folder", done.stdout + done.stderr
    assert not Path(folder).exists()
