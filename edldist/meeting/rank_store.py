"""The store where ranks make their process group: torch's ``TCPStore``, on this machine's loopback alone.

torch listens on every interface and asks nobody who he is, so the agent of the node with rank 0 serves it, at
a socket that it has bound to the loopback interface before. Ranks of other nodes reach it through
``store_door``.
"""

from __future__ import annotations

import socket

from torch.distributed import TCPStore

__all__ = ["LOOPBACK", "RankStore"]

LOOPBACK = "127.0.0.1"


class RankStore:
    """Serves until it is closed; one for each generation, since what a former one's ranks wrote is in it."""

    def __init__(self) -> None:
        listener = socket.create_server((LOOPBACK, 0))
        self.port: int = listener.getsockname()[1]
        self._store: TCPStore | None = TCPStore(
            LOOPBACK,
            self.port,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),  # torch closes it
        )

    def close(self) -> None:
        self._store = None
