"""Freed memory of the size of large frames stays with the process that receives them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import numpy as np
from edldist.wire.zmq.transport import ZmqTransport

poller = ZmqTransport(tensors=sys.argv[1] == "tensors").poller()

def receive():
    for frame in [np.empty(3_000_000, np.uint8) for _ in range(8)]:
        frame.fill(1)

receive()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    receive()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 20)
poller.close()
"""


def faults_a_round(kind: str, **env: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, kind], env={**os.environ, **env}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory as it likes")
def test_memory_of_large_frames_is_not_faulted_in_again_and_again():
    assert faults_a_round("tensors") < 100
    assert faults_a_round("control") > 1000, "this C library keeps freed memory anyway"
    assert faults_a_round("tensors", MALLOC_MMAP_THRESHOLD_="131072") > 1000, "a user's setting is kept"
