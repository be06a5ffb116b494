"""What a fork may find half done in the process that it was forked from."""

from __future__ import annotations

import subprocess
import sys

TRAFFIC = """
import sys
import torch
from edldist.wire.messages import Goodbye
from edldist.wire.tensors import pack
from edldist.wire.zmq.transport import ZmqTransport
transport = ZmqTransport()
poller = transport.poller()
hub = poller.bind("tcp://127.0.0.1:0")
link = poller.connect(hub.address, "worker")
before = set(sys.modules)
_, frames = pack({"logits": torch.zeros(1 << 18)})
for _ in range(50):  # enough for both sides to find shared memory, too
    link.send(Goodbye(id="worker"), frames)
    while (received := hub.receive()) is None:
        poller.wait(0.05)
    hub.send(received.sender, Goodbye(id="hub"))
    while link.receive() is None:
        poller.wait(0.05)
    del received
print(sorted(name for name in set(sys.modules) - before if name.startswith(("edldist", "numpy"))))
poller.close()
"""


def test_a_thread_that_sends_imports_nothing() -> None:
    """A fork in the middle of an import, such as a data loader's worker, waits for its end for ever."""
    done = subprocess.run([sys.executable, "-c", TRAFFIC], capture_output=True, text=True, timeout=150)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
