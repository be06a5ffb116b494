"""Two ends on one host that may share memory, and memory that one of them lends."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable

from edldist.wire.messages import Ack
from edldist.wire.shm.memfile import address_of
from edldist.wire.transport import Piece, Received, Sender
from edldist.wire.zmq.endpoints import ZmqHub, ZmqLink
from edldist.wire.zmq.poller import ZmqPoller
from edldist.wire.zmq.transport import ZmqTransport

ANYWHERE = "tcp://127.0.0.1:0"
LARGE = 200_000


class Pair:
    """A hub and a link, each with a poller of its own, and what their sockets carried."""

    def __init__(self, hub: bool = True, link: bool = True) -> None:
        self.server = ZmqTransport(1 << 22, shared_memory=hub).poller()
        self.client = ZmqTransport(1 << 22, shared_memory=link).poller()
        self.hub: ZmqHub = self.server.bind(ANYWHERE)
        self.link: ZmqLink = self.client.connect(self.hub.address, "t-1")
        self.link.send(Ack(seq=0))
        self.at_hub()

    def at_hub(self) -> Received:
        return take(self.server, self.hub)

    def at_link(self) -> Received:
        return take(self.client, self.link)

    def there_and_back(self, frame: bytes) -> tuple[Received, Received]:
        self.link.send(Ack(seq=1), [frame])
        there = self.at_hub()
        self.hub.send(Sender(b"t-1"), Ack(seq=2), [frame])
        return there, self.at_link()

    def settle(self, seconds: float = 0.05) -> None:
        """Let both sides take in what they say to each other: for what should *not* happen."""
        deadline = time.monotonic() + seconds
        self._exchange(lambda: time.monotonic() >= deadline)

    def until(self, condition: Callable[[], bool]) -> None:
        """Let both sides take in what they say to each other, until something is so."""
        deadline = time.monotonic() + 90
        self._exchange(lambda: condition() or time.monotonic() >= deadline)
        assert condition()

    def _exchange(self, done: Callable[[], bool]) -> None:
        while not done():
            for poller, end in ((self.server, self.hub), (self.client, self.link)):
                assert end.receive() is None
                poller.wait(0.002)

    def paired(self) -> Pair:
        deadline = time.monotonic() + 90
        while not (self.hub_pairs and self.link_pairs):
            assert time.monotonic() < deadline
            self.there_and_back(bytes(LARGE))
            self.settle(0.01)
        return self

    @property
    def hub_pairs(self) -> bool:
        return b"t-1" in self.hub._pairings and self.hub._pairings[b"t-1"].paired

    @property
    def link_pairs(self) -> bool:
        return b"" in self.link._pairings and self.link._pairings[b""].paired

    def close(self) -> None:
        self.client.close()
        self.server.close()


def take(poller: ZmqPoller, end: ZmqHub | ZmqLink) -> Received:
    deadline = time.monotonic() + 90
    while (received := end.receive()) is None:
        assert time.monotonic() < deadline, "no message within 10 s"
        poller.wait(0.05)
    return received


class Lent:
    """Memory as torch's: a file in /dev/shm without a name."""

    def __init__(self, size: int) -> None:
        path = f"/dev/shm/torch_edldist_test_{os.getpid()}"
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.unlink(path)
        os.ftruncate(self.fd, size)
        self.memory = memoryview(mmap.mmap(self.fd, size))

    def piece(self, start: int, stop: int) -> Piece:
        return Piece(self.memory[start:stop], address_of(self.fd), start)

    def close(self) -> None:
        os.close(self.fd)
