"""torchrun as it comes, with what lets it survive at all: what ``restart`` compares with.

``python -m edldist_benchmarks.plain_torchrun HOST PORT`` holds the store in which its agents meet, outside of
the nodes. By default it is on node 0, and the job dies with that node.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from edldist_launch.process.tie import tied_command

__all__ = ["ENVIRONMENT", "plain_command"]

ENVIRONMENT = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "GLOO_SOCKET_IFNAME": "lo"}
"""Without the first, agents keep the first round's worker store, and a node that joins hangs the job."""

# With the defaults (heartbeats of 5 s, 30 s for latecomers) survivors of a killed node wait 45 s for their
# next round, with these 5 s.
_RENDEZVOUS = "is_host=0,last_call_timeout=1,read_timeout=20,keep_alive_interval=1,keep_alive_max_attempt=3"


def plain_command(script: str, args: Sequence[str], nnodes: str, store: str) -> list[str]:
    """One node; its rank dies with its agent.

    Args:
        store: ``HOST:PORT`` where this module was started.
    """
    return [
        *(sys.executable, "-m", "torch.distributed.run", f"--nnodes={nnodes}", "--nproc-per-node=1"),
        *("--max-restarts=1000000", "--monitor-interval=0.2", "--local-addr=127.0.0.1"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint={store}", "--rdzv-id=plain"),
        *(f"--rdzv-conf={_RENDEZVOUS}", "--no-python"),
        *tied_command([sys.executable, "-u", script], parent=0, signum=signal.SIGKILL),
        *args,
    ]


if __name__ == "__main__":
    from torch.distributed import TCPStore

    holder = TCPStore(sys.argv[1], int(sys.argv[2]), is_master=True, wait_for_workers=False)
    signal.pause()
