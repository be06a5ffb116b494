"""The rendezvous store: where torchrun agents meet, outside of every student node.

torchrun hosts its store on node 0 by default, and the job dies with that node. Here the store is
a tiny process of its own beside the coordinator, which starts it when the first student node asks.
It outlives a coordinator that is killed; the coordinator's successor, listening on the same
address, finds it on the same port, and hears its process id from it every second. It ends when
its coordinator ends in order, or when none has answered for ``ORPHAN_S``.

The store has no authentication (it is torch's TCPStore): use cluster-internal addresses.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time

from edldist.wire.messages import Rendezvous, RendezvousQuery
from edldist.wire.transport import Link, Poller
from edldist.wire.zmq.transport import CONTROL_FRAME_BYTES, ZmqTransport

__all__ = ["RendezvousHost"]

logger = logging.getLogger(__name__)

ORPHAN_S = 600.0
PORT_OFFSET = 2
_START_S = 60.0
_ANNOUNCE_S = 1.0


class RendezvousHost:
    """Starts the store on demand and says where it is. Owned by the coordinator's main thread.

    Args:
        coordinator: its own bound address.
        address: ``host:port`` of the store, or None for the coordinator's host and its port + 2.
    """

    def __init__(self, coordinator: str, address: str | None) -> None:
        self._coordinator = coordinator
        host, _, port = coordinator.removeprefix("tcp://").rpartition(":")
        self.address = address or f"{host}:{int(port) + PORT_OFFSET}"
        self._process: subprocess.Popen[bytes] | None = None
        self._adopted_pid = 0
        self._started = 0.0
        self._was_up = False

    def adopt(self, pid: int) -> Rendezvous:
        """A store that another coordinator started announces itself."""
        if self._process is None and pid != self._adopted_pid:
            self._adopted_pid = pid
            logger.info("adopted the rendezvous store at %s (pid %d)", self.address, pid)
        return Rendezvous(address=self.address)

    def ask(self, now: float) -> Rendezvous:
        """Where the store is; starts it if nothing listens there yet."""
        if self._listening():
            self._was_up = True
            return Rendezvous(address=self.address)
        if self._was_up and self._process is not None and self._process.poll() is not None:
            # It could start before, so it can again: agents that lost it are waiting for the next one.
            logger.warning("the rendezvous store at %s was lost: starting it anew", self.address)
            self._process = None
        if self._process is None:
            self._start(now)
            return Rendezvous()
        code = self._process.poll()
        if code is not None or now - self._started > _START_S:
            self.close()
            how = f"ended with exit code {code}" if code is not None else f"did not start in {_START_S:.0f} s"
            return Rendezvous(
                error=f"the rendezvous store at {self.address} {how}; see the coordinator's log"
            )
        return Rendezvous()

    def close(self) -> None:
        """End the store."""
        if self._adopted_pid and _is_store(self._adopted_pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self._adopted_pid, signal.SIGTERM)
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start(self, now: float) -> None:
        self._started = now
        self._was_up = False
        logger.info("starting a rendezvous store at %s", self.address)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, "--address", self.address, "--coordinator", self._coordinator],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # whoever kills this coordinator's group spares the store
        )

    def _listening(self) -> bool:
        host, _, port = self.address.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=0.2):
                return True
        except OSError:
            return False


def _is_store(pid: int) -> bool:
    """Whether a process of this host still is a store: its id may have been given away since."""
    import psutil

    try:
        return __name__ in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False


def serve(address: str, coordinator: str, orphan_s: float) -> int:
    """Hold the store until SIGTERM, or until nobody has coordinated for ``orphan_s``."""
    from torch.distributed import TCPStore

    host, _, port = address.rpartition(":")
    store = TCPStore(host.strip("[]"), int(port), is_master=True, wait_for_workers=False)
    poller = ZmqTransport(CONTROL_FRAME_BYTES, tensors=False).poller()
    link = poller.connect(coordinator, f"rendezvous-{os.getpid()}")
    try:
        _announce(poller, link, orphan_s)
    finally:
        poller.close()
        del store
    logger.warning("no coordinator at %s for %.0f s: the rendezvous store ends", coordinator, orphan_s)
    return 0


def _announce(poller: Poller, link: Link, orphan_s: float) -> None:
    """Tell whoever coordinates that the store is here; return once nobody does."""
    last_answer = time.monotonic()
    while time.monotonic() - last_answer < orphan_s:
        link.send(RendezvousQuery(store_pid=os.getpid()))
        poller.wait(_ANNOUNCE_S)
        while link.receive() is not None:
            last_answer = time.monotonic()
        time.sleep(_ANNOUNCE_S)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Hold the store in which torchrun agents meet.")
    parser.add_argument("--address", required=True, help="host:port to listen on")
    parser.add_argument("--coordinator", required=True, help="tcp://host:port")
    parser.add_argument("--orphan-s", type=float, default=ORPHAN_S)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(serve(options.address, options.coordinator, options.orphan_s))
