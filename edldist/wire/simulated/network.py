"""Who is connected to whom, and what is on its way between them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Protocol

from edldist.errors import ConfigError
from edldist.wire.messages import Message
from edldist.wire.simulated.endpoints import (
    Connection,
    Raw,
    SimulatedHub,
    SimulatedLink,
    SimulatedPoller,
    SimulatedTransport,
    Way,
)

__all__ = ["Network", "Schedule"]

RECONNECT_S = (0.05, 1.0)
LINGER_S = 2.0
"""What a link was given before it was closed still leaves for so long."""
UNCONFIRMED_S = 5.0
"""A connection on which nothing gets through for so long is given up, as by TCP_MAXRT."""


class Schedule(Protocol):
    """What the network needs of whoever decides what happens when."""

    @property
    def now(self) -> float:
        """Simulated seconds."""
        ...

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Call something at a time that is not past."""
        ...


class Network:
    """All hosts, and what is on its way between them. One seed and one schedule make one run.

    Args:
        schedule: when things happen.
        seed: of all delays, and of what a broken connection takes along. Every path has numbers of its own,
            so that what happens on one changes little on the others.
    """

    def __init__(self, schedule: Schedule, seed: str) -> None:
        self._schedule = schedule
        self._seed = seed
        self._chances: dict[tuple[str, str], random.Random] = {}
        self._ports = itertools.count(50_000)
        self._hubs: dict[str, SimulatedHub] = {}
        # Invariant: a link is in here while it is open, connected or not, and while it lingers.
        self._links: dict[SimulatedLink, None] = {}
        self._blocked: dict[tuple[str, str], float] = {}  # since when
        self._stopped: set[str] = set()
        self._doomed: set[tuple[str, str]] = set()
        self.delay_s = (0.0001, 0.002)
        self.slow_share = 0.02
        """Share of messages that take up to ``slow_s`` seconds; those behind them wait, and come at once."""
        self.slow_s = 0.05
        self.watch: Callable[[str, str, Message], None] | None = None
        """Called with each message that is read: the reader's host, who it is from, and the message."""
        self.files: dict[str, str] = {}
        """What address files say, by their paths: the file system that all hosts share."""
        self.max_frame_bytes = 1 << 30
        self.refused_frames = 0
        self.lost_messages = 0
        self.broken_connections = 0

    def transport(self, host: str, ring: Callable[[], None]) -> SimulatedTransport:
        return SimulatedTransport(self, host, ring)

    def now(self) -> float:
        """Simulated seconds."""
        return self._schedule.now

    # --- what faults do ---------------------------------------------------------------------------

    def block(self, source: str, sink: str) -> None:
        """Nothing gets from one host to another any more."""
        since = self._blocked.setdefault((source, sink), self._schedule.now)
        self._schedule.at(since + UNCONFIRMED_S, lambda: self._give_up(source, sink, since))

    def unblock(self, source: str, sink: str) -> None:
        """The path is open: what was held back arrives, unless its connection was given up meanwhile."""
        since = self._blocked.pop((source, sink), None)
        if since is None:
            return
        for connection in self._connections():
            for way in (connection.to_hub, connection.to_link):
                if (way.source, way.sink) == (source, sink) and way.flying:
                    if self._chance(source, sink).random() < 0.3:
                        self.snap(connection)
                        break
                    self._release(way)

    def heal(self) -> None:
        """Open every path."""
        for source, sink in list(self._blocked):
            self.unblock(source, sink)

    def stop(self, host: str) -> None:
        """A host stands still: nobody can connect to it or from it."""
        self._stopped.add(host)

    def go_on(self, host: str) -> None:
        self._stopped.discard(host)

    def break_connections(self, host: str, other: str | None = None) -> int:
        """Break the connections of a host (with another one); returns how many."""
        broken = [
            connection
            for connection in self._connections()
            if host in (connection.link.host, connection.hub.host)
            and other in (None, connection.link.host, connection.hub.host)
        ]
        for connection in broken:
            self.snap(connection)
        return len(broken)

    def break_at_next_message(self, source: str, sink: str) -> None:
        """The next message from one host to another is lost, and its connection with it."""
        self._doomed.add((source, sink))

    def kill(self, host: str) -> None:
        """All processes of a host end at once, and its connections with them."""
        for connection in self._connections():
            if host == connection.hub.host:
                self.snap(connection)
            elif host == connection.link.host:
                self.snap(connection, again=False)
        for link in [link for link in self._links if link.host == host]:
            link.closed = True
            del self._links[link]
        for hub in [hub for hub in self._hubs.values() if hub.host == host]:
            hub.closed = True
            del self._hubs[hub.address]

    def snap(self, connection: Connection, again: bool = True) -> None:
        """Break a connection: of what is on its way some arrives, and the tail is lost."""
        if not connection.up:
            return
        self.broken_connections += 1
        for way in (connection.to_hub, connection.to_link):
            blocked = (way.source, way.sink) in self._blocked
            kept = 0 if blocked else self._chance(way.source, way.sink).randint(0, len(way.flying))
            for _ in range(kept):
                self._arrive(way)
            self.lost_messages += len(way.flying)
            way.flying.clear()
        self._part(connection)
        if again:
            self._reconnect_soon(connection.link)

    # --- endpoints --------------------------------------------------------------------------------

    def bind(self, poller: SimulatedPoller, address: str) -> SimulatedHub:
        if "://" not in address:
            raise ConfigError(f"cannot listen on {address}: invalid argument. Use tcp://HOST:PORT")
        if address.endswith(":0"):
            address = f"{address[:-2]}:{next(self._ports)}"
        if address in self._hubs:
            raise ConfigError(f"cannot listen on {address}: address already in use")
        hub = self._hubs[address] = SimulatedHub(self, poller, address)
        for link in self._links:
            if link.address == address and link.connection is None:
                self._reconnect_soon(link)
        return hub

    def unbind(self, hub: SimulatedHub) -> None:
        """A hub ends in order: what it sent arrives."""
        self._hubs.pop(hub.address, None)
        for connection in list(hub.connections.values()):
            while connection.to_link.flying:
                self._arrive(connection.to_link)
            self._part(connection)
            self._reconnect_soon(connection.link)

    def connect(self, poller: SimulatedPoller, address: str, identity: bytes) -> SimulatedLink:
        if "://" not in address:
            raise ConfigError(f"cannot connect to {address!r}: invalid argument. Use tcp://HOST:PORT")
        link = SimulatedLink(self, poller, address, identity)
        self._links[link] = None
        delay_s = self._delay_s(link.host, address)
        self._schedule.at(self._schedule.now + delay_s, lambda: self._meet(link))
        return link

    def disconnect(self, link: SimulatedLink) -> None:
        """A link ends in order: what it sent arrives, if its hub can be reached within ``LINGER_S``."""
        connection = link.connection
        if connection is None and link.waiting and link in self._links:
            self._schedule.at(self._schedule.now + LINGER_S, lambda: self._links.pop(link, None))
            return
        self._links.pop(link, None)
        if connection is not None:
            if (link.host, connection.hub.host) not in self._blocked:
                while connection.to_hub.flying:
                    self._arrive(connection.to_hub)
            self._part(connection)

    def carry(self, way: Way, raw: Raw) -> None:
        """Put one message on its way; one with a frame that nobody takes in ends its connection."""
        if max(map(len, raw[1:]), default=0) > self.max_frame_bytes:
            self.refused_frames += 1
            self.snap(way.connection)
            return
        arrives_at = self._schedule.now + self._delay_s(way.source, way.sink)
        if self._doomed and (way.source, way.sink) in self._doomed:
            self._doomed.discard((way.source, way.sink))
            self.lost_messages += 1
            self.snap(way.connection)
            return
        # Behind what was sent before it; exactly then where it would have overtaken that.
        way.last_at = max(way.last_at, arrives_at)
        way.flying.append((way.last_at, raw))
        self._schedule.at(way.last_at, lambda: self._deliver(way))

    # --- inside -----------------------------------------------------------------------------------

    def _chance(self, source: str, sink: str) -> random.Random:
        chance = self._chances.get((source, sink))
        if chance is None:
            chance = self._chances[source, sink] = random.Random(f"{self._seed}/{source}>{sink}")
        return chance

    def _delay_s(self, source: str, sink: str) -> float:
        chance = self._chance(source, sink)
        if chance.random() < self.slow_share:
            return chance.uniform(0.0, self.slow_s)
        return chance.uniform(*self.delay_s)

    def _give_up(self, source: str, sink: str, blocked_since: float) -> None:
        """What is sent is not confirmed for too long: those connections are over."""
        if self._blocked.get((source, sink)) != blocked_since:
            return
        for connection in self._connections():
            for way in (connection.to_hub, connection.to_link):
                if (way.source, way.sink) == (source, sink) and way.flying:
                    self.snap(connection)
                    break

    def _connections(self) -> list[Connection]:
        return [link.connection for link in self._links if link.connection is not None]

    def _deliver(self, way: Way) -> None:
        if (way.source, way.sink) in self._blocked:
            return
        arrived = False
        while way.flying and way.flying[0][0] <= self._schedule.now:
            self._arrive(way)
            arrived = True
        if arrived:
            way.inbox_of._poller.ring()

    def _release(self, way: Way) -> None:
        raws = [raw for _, raw in way.flying]
        way.flying.clear()
        for raw in raws:
            self.carry(way, raw)

    def _arrive(self, way: Way) -> None:
        _, raw = way.flying.popleft()
        endpoint = way.inbox_of
        if endpoint.closed:
            return
        peer = way.connection.link.identity if way is way.connection.to_hub else b""
        endpoint.inbox.append((peer, raw))
        endpoint._poller.ring()

    def _part(self, connection: Connection) -> None:
        connection.up = False
        link, hub = connection.link, connection.hub
        if link.connection is connection:
            link.connection = None
        if hub.connections.get(link.identity) is connection:
            del hub.connections[link.identity]

    def _reconnect_soon(self, link: SimulatedLink) -> None:
        if not link.closed:
            after_s = self._chance(link.host, link.address).uniform(RECONNECT_S[0], RECONNECT_S[0] * 3)
            self._schedule.at(self._schedule.now + after_s, lambda: self._meet(link))

    def _meet(self, link: SimulatedLink) -> None:
        """Try to connect, and again later if the hub is not to be reached; one that is gone binds anew."""
        if link not in self._links or link.connection is not None:
            return
        hub = self._hubs.get(link.address)
        if hub is None:
            return
        here, there = link.host, hub.host
        apart = (here, there) in self._blocked or (there, here) in self._blocked
        if apart or here in self._stopped or there in self._stopped:
            again_s = self._chance(here, link.address).uniform(*RECONNECT_S)
            self._schedule.at(self._schedule.now + again_s, lambda: self._meet(link))
            return
        former = hub.connections.get(link.identity)
        if former is not None:
            self.snap(former)
        link.connection = hub.connections[link.identity] = Connection(link, hub)
        while link.waiting and link.connection is not None:
            self.carry(link.connection.to_hub, link.waiting.popleft())
        if link.closed:
            self.disconnect(link)
