"""Hubs and links on a simulated network, and what opens them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edldist.errors import PeerUnreachableError, ProtocolVersionError, WireError
from edldist.wire import moving
from edldist.wire.messages import PROTOCOL, Message, decode, encode
from edldist.wire.traffic import Traffic
from edldist.wire.transport import SKIPPED_A_TURN, Link, Outgoing, Received, Sender, payload

if TYPE_CHECKING:
    from edldist.wire.simulated.network import Network

__all__ = [
    "QUEUED_MESSAGES",
    "Connection",
    "Raw",
    "SimulatedHub",
    "SimulatedLink",
    "SimulatedPoller",
    "SimulatedTransport",
    "Way",
]

Raw = tuple[bytes, ...]

QUEUED_MESSAGES = 2_000
"""Messages that may wait on their way to a peer, or in a link that has no hub."""


class Way:
    """One direction of a connection."""

    __slots__ = ("connection", "flying", "inbox_of", "last_at", "sink", "source")

    def __init__(self, connection: Connection, source: str, sink: str, inbox_of: _Endpoint) -> None:
        self.connection = connection
        self.source = source
        self.sink = sink
        self.inbox_of = inbox_of
        # Invariant: ordered by time; nothing in it has arrived.
        self.flying: deque[tuple[float, Raw]] = deque()
        self.last_at = 0.0


class Connection:
    """A link and a hub that have met."""

    __slots__ = ("hub", "link", "to_hub", "to_link", "up")

    def __init__(self, link: SimulatedLink, hub: SimulatedHub) -> None:
        self.link = link
        self.hub = hub
        self.up = True
        self.to_hub = Way(self, link.host, hub.host, hub)
        self.to_link = Way(self, hub.host, link.host, link)


class _Endpoint:
    """What hubs and links share."""

    def __init__(self, network: Network, poller: SimulatedPoller, address: str) -> None:
        self._network = network
        self._poller = poller
        self.address = address
        self.host = poller.host
        self.inbox: deque[tuple[bytes, Raw]] = deque()
        self.garbage = 0
        self.skipped = 0  # since the last wait
        self.closed = False

    def _parse(self) -> Received | None:
        """The next message; errors of the wire are the caller's."""
        if not self.inbox:
            return None
        peer, raw = self.inbox.popleft()
        if not raw:
            raise WireError("a message of no frames")
        received = Received(Sender(peer), decode(raw[0]), [memoryview(bytearray(frame)) for frame in raw[1:]])
        if self._network.watch is not None:
            self._network.watch(self.host, peer.decode() or self.address, received.message)
        return received

    def _had_enough(self) -> bool:
        """Whether one more message that was none is as many as a turn may meet."""
        self.skipped += 1
        return self.skipped >= SKIPPED_A_TURN


class SimulatedHub(_Endpoint):
    """The many-peer end."""

    def __init__(self, network: Network, poller: SimulatedPoller, address: str) -> None:
        super().__init__(network, poller, address)
        self.connections: dict[bytes, Connection] = {}

    @property
    def connected(self) -> int:
        return len(self.connections)

    def key_news(self) -> None:
        return None

    def send(self, peer: Sender, message: Message, frames: Outgoing = ()) -> None:
        self.send_raw(peer.route, raw_of(message, frames))

    def send_raw(self, peer: bytes, frames: Sequence[bytes]) -> None:
        """Send frames that need not be a message: what a broken or hostile peer does."""
        connection = self.connections.get(peer)
        if connection is None:
            raise PeerUnreachableError(f"peer {peer!r} is gone")
        way = connection.to_link
        if len(way.flying) + len(connection.link.inbox) >= QUEUED_MESSAGES:
            raise PeerUnreachableError(f"peer {peer!r} takes nothing in any more (its queue is full)")
        self._network.carry(way, tuple(frames))

    def receive(self) -> Received | None:
        while self.inbox:
            peer = self.inbox[0][0]
            try:
                return self._parse()
            except ProtocolVersionError:
                self.garbage += 1
                if (connection := self.connections.get(peer)) is not None:
                    self._network.carry(connection.to_link, (PROTOCOL.preface,))
            except WireError:
                self.garbage += 1
            if self._had_enough():
                return None
        return None

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._network.unbind(self)


class SimulatedLink(_Endpoint):
    """The one-peer end."""

    trouble = ""
    renewed = 0

    def __init__(self, network: Network, poller: SimulatedPoller, address: str, identity: bytes) -> None:
        super().__init__(network, poller, address)
        self.identity = identity
        self.connection: Connection | None = None
        self.waiting: deque[Raw] = deque()

    def send(self, message: Message, frames: Outgoing = ()) -> bool:
        return self.send_raw(raw_of(message, frames))

    def send_raw(self, frames: Sequence[bytes]) -> bool:
        """Send frames that need not be a message: what a broken or hostile peer does."""
        connection = self.connection
        if connection is None:
            if len(self.waiting) >= QUEUED_MESSAGES:
                return False
            self.waiting.append(tuple(frames))
            return True
        way = connection.to_hub
        if len(way.flying) >= QUEUED_MESSAGES:
            return False
        self._network.carry(way, tuple(frames))
        return True

    def receive(self) -> Received | None:
        while self.inbox:
            try:
                return self._parse()
            except ProtocolVersionError as exc:
                raise exc.at(self.address) from None
            except WireError:
                self.garbage += 1
            if self._had_enough():
                return None
        return None

    def close(self, at_once: bool = False) -> None:
        if not self.closed:
            self.closed = True
            self._network.disconnect(self)


class SimulatedLookup:
    """Reads an address file of the simulated file system, at once."""

    def __init__(self, network: Network, path: str) -> None:
        self.address: str | None = None
        self._network = network
        self._path = path

    def look(self, wait_s: float = 0.0) -> None:
        self.address = self._network.files.get(self._path, self.address)


class SimulatedPoller:
    """Opens endpoints on the network; instead of waiting, it rings."""

    def __init__(self, network: Network, host: str, ring: Callable[[], None]) -> None:
        self._network = network
        self.traffic = Traffic()
        self.host = host
        self.ring = ring
        self.endpoints: list[SimulatedHub | SimulatedLink] = []

    def bind(self, address: str) -> SimulatedHub:
        hub = self._network.bind(self, address)
        self.endpoints.append(hub)
        return hub

    def connect(self, address: str, identity: str, to: str = "coordinator") -> Link:
        return moving.connect(
            address,
            lambda place: self._connect(place, identity),
            lambda file: SimulatedLookup(self._network, str(file.path)),
            self._network.now,
        )

    def _connect(self, address: str, identity: str) -> SimulatedLink:
        link = self._network.connect(self, address, identity.encode())
        self.endpoints = [endpoint for endpoint in self.endpoints if not endpoint.closed]
        self.endpoints.append(link)
        return link

    @property
    def pending(self) -> bool:
        """Whether an endpoint has something to be read."""
        return any(endpoint.inbox and not endpoint.closed for endpoint in self.endpoints)

    def wait(self, timeout_s: float) -> None:
        """A turn begins. Nothing is waited for: whoever rings is called when it is time."""
        for endpoint in self.endpoints:
            endpoint.skipped = 0

    def wake(self) -> None:
        self.ring()

    def close(self, at_once: bool = False) -> None:
        """End as a process does that said goodbye: what was sent has left and arrives."""
        for endpoint in self.endpoints:
            endpoint.close()
        self.endpoints.clear()


class SimulatedTransport:
    """The network as one process sees it.

    Args:
        host: where the process is; paths are blocked between hosts.
        ring: called when something has come for a poller of it, or somebody woke it.
    """

    def __init__(self, network: Network, host: str, ring: Callable[[], None]) -> None:
        self._network = network
        self._host = host
        self._ring = ring
        self.pollers: list[SimulatedPoller] = []

    def poller(self) -> SimulatedPoller:
        poller = SimulatedPoller(self._network, self._host, self._ring)
        self.pollers.append(poller)
        return poller

    @property
    def pending(self) -> bool:
        """Whether something has come that was not read."""
        return any(poller.pending for poller in self.pollers)

    def wait(self) -> None:
        """A turn of this process begins."""
        for poller in self.pollers:
            poller.wait(0.0)


def raw_of(message: Message, frames: Outgoing) -> Raw:
    return (encode(message), *(bytes(payload(frame)) for frame in frames))
