"""The transport without sockets: queues in this process, for tests of this library and its users.

Headers and frames are encoded and copied as on a real wire, so what passes here is what a socket
would carry. ``sever`` cuts a peer off as its death would.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence

from edldist.errors import ConfigError, PeerUnreachableError, ProtocolVersionError, WireError
from edldist.wire import moving
from edldist.wire.messages import PROTOCOL, Message, decode, encode
from edldist.wire.traffic import Traffic
from edldist.wire.transport import SKIPPED_A_TURN, Link, Outgoing, Received, Sender, payload

__all__ = ["MemoryTransport"]

_Raw = tuple[bytes, list[bytes]]


class _Bell:
    """What a poller waits on. Ringing takes no lock, so that a signal handler may interrupt it and ring."""

    def __init__(self) -> None:
        self._rung: queue.SimpleQueue[None] = queue.SimpleQueue()

    def ring(self) -> None:
        if self._rung.empty():
            self._rung.put(None)

    def wait(self, timeout_s: float) -> None:
        with contextlib.suppress(queue.Empty):
            self._rung.get(timeout=max(0.0, timeout_s))
            while True:
                self._rung.get_nowait()


class MemoryHub:
    """The many-peer end."""

    def __init__(self, network: MemoryTransport, address: str, bell: _Bell) -> None:
        self._network = network
        self._address = address
        self._bell = bell
        self._inbox: deque[_Raw] = deque()
        self.garbage = 0
        self._skipped = 0  # since the last wait

    @property
    def address(self) -> str:
        return self._address

    def send(self, peer: Sender, message: Message, frames: Outgoing = ()) -> None:
        raw = [encode(message), *(bytes(payload(frame)) for frame in frames)]
        if not self._network._to_link(self._address, peer.route, raw):
            raise PeerUnreachableError(f"peer {peer} is gone")

    @property
    def connected(self) -> int:
        return self._network._links_to(self._address)

    def key_news(self) -> None:
        return None

    def receive(self) -> Received | None:
        while self._inbox:
            peer, frames = self._inbox.popleft()
            try:
                return _parse(peer, frames)
            except ProtocolVersionError:
                self.garbage += 1
                self._network._to_link(self._address, peer, [PROTOCOL.preface])
            except WireError:
                self.garbage += 1
            self._skipped += 1
            if self._skipped >= SKIPPED_A_TURN:
                return None
        return None

    def close(self) -> None:
        self._network._unbind(self)
        self._inbox.clear()


class MemoryLink:
    """The one-peer end."""

    trouble = ""
    renewed = 0

    def __init__(self, network: MemoryTransport, address: str, identity: bytes, bell: _Bell) -> None:
        self._network = network
        self._address = address
        self._identity = identity
        self._bell = bell
        self._inbox: deque[list[bytes]] = deque()
        self._waiting: deque[list[bytes]] = deque()
        self.garbage = 0
        self._skipped = 0  # since the last wait

    @property
    def address(self) -> str:
        return self._address

    def send(self, message: Message, frames: Outgoing = ()) -> bool:
        self.send_raw([encode(message), *(bytes(payload(frame)) for frame in frames)])
        return True

    def send_raw(self, frames: Sequence[bytes]) -> None:
        """Send frames that need not be a message: what a broken or hostile peer does."""
        self._network._to_hub(self, list(frames))

    def receive(self) -> Received | None:
        while self._inbox:
            try:
                return _parse(b"", self._inbox.popleft())
            except ProtocolVersionError as exc:
                raise exc.at(self._address) from None
            except WireError:
                self.garbage += 1
            self._skipped += 1
            if self._skipped >= SKIPPED_A_TURN:
                return None
        return None

    def close(self, at_once: bool = False) -> None:
        self._network._disconnect(self)
        self._inbox.clear()


class MemoryPoller:
    """Opens endpoints on the shared network and waits on all of them."""

    def __init__(self, network: MemoryTransport) -> None:
        self._network = network
        self.traffic = Traffic()
        self._bell = _Bell()
        self._endpoints: list[MemoryHub | MemoryLink] = []

    def bind(self, address: str) -> MemoryHub:
        hub = self._network._bind(address, self._bell)
        self._endpoints.append(hub)
        return hub

    def connect(self, address: str, identity: str, to: str = "coordinator") -> Link:
        return moving.connect(
            address,
            lambda place: self._connect(place, identity),
            lambda file: moving.FileLookup(file, self.wake),
            time.monotonic,
        )

    def _connect(self, address: str, identity: str) -> MemoryLink:
        link = self._network._connect(address, identity.encode(), self._bell)
        self._endpoints.append(link)
        return link

    def wait(self, timeout_s: float) -> None:
        for endpoint in self._endpoints:
            endpoint._skipped = 0
        if not any(endpoint._inbox for endpoint in self._endpoints):
            self._bell.wait(timeout_s)

    def wake(self) -> None:
        self._bell.ring()

    def close(self, at_once: bool = False) -> None:
        for endpoint in self._endpoints:
            endpoint.close()
        self._endpoints.clear()


class MemoryTransport:
    """One network of this process; every poller made here sees the same addresses."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hubs: dict[str, MemoryHub] = {}
        self._links: dict[tuple[str, bytes], MemoryLink] = {}
        self._ports = itertools.count(50_000)

    def poller(self) -> MemoryPoller:
        return MemoryPoller(self)

    def sever(self, address: str, identity: str) -> None:
        """Cut one link off: its hub finds the peer gone; what it sends arrives nowhere."""
        with self._lock:
            self._links.pop((address, identity.encode()), None)

    def _bind(self, address: str, bell: _Bell) -> MemoryHub:
        if "://" not in address:
            raise ConfigError(f"cannot listen on {address}: invalid argument. Use tcp://HOST:PORT")
        with self._lock:
            if address.endswith(":0"):
                address = f"{address[:-2]}:{next(self._ports)}"
            if address in self._hubs:
                raise ConfigError(f"cannot listen on {address}: address already in use")
            hub = self._hubs[address] = MemoryHub(self, address, bell)
            for (where, _), link in self._links.items():
                if where == address:
                    hub._inbox.extend((link._identity, frames) for frames in link._waiting)
                    link._waiting.clear()
        bell.ring()
        return hub

    def _links_to(self, address: str) -> int:
        with self._lock:
            return sum(where == address for where, _ in self._links)

    def _unbind(self, hub: MemoryHub) -> None:
        with self._lock:
            if self._hubs.get(hub._address) is hub:
                del self._hubs[hub._address]

    def _connect(self, address: str, identity: bytes, bell: _Bell) -> MemoryLink:
        if "://" not in address:
            raise ConfigError(f"cannot connect to {address!r}: invalid argument. Use tcp://HOST:PORT")
        link = MemoryLink(self, address, identity, bell)
        with self._lock:
            self._links[(address, identity)] = link
        return link

    def _disconnect(self, link: MemoryLink) -> None:
        with self._lock:
            if self._links.get((link._address, link._identity)) is link:
                del self._links[(link._address, link._identity)]

    def _to_hub(self, link: MemoryLink, frames: list[bytes]) -> None:
        with self._lock:
            if self._links.get((link._address, link._identity)) is not link:
                return
            hub = self._hubs.get(link._address)
            if hub is None:
                link._waiting.append(frames)
                return
            hub._inbox.append((link._identity, frames))
        hub._bell.ring()

    def _to_link(self, address: str, peer: bytes, frames: list[bytes]) -> bool:
        with self._lock:
            link = self._links.get((address, peer))
            if link is None:
                return False
            link._inbox.append(frames)
        link._bell.ring()
        return True


def _parse(peer: bytes, frames: list[bytes]) -> Received:
    if not frames:
        raise WireError("a message of no frames")
    return Received(Sender(peer), decode(frames[0]), [memoryview(bytearray(frame)) for frame in frames[1:]])
