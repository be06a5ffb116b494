"""A poller over ZeroMQ: its sockets, with every default of libzmq that is unsafe set to something safe."""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import os
import secrets
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

import zmq

# Large frames are lent to libzmq, and this gives them back until its exit handler has run. Handlers run in
# reverse: imported here, before anything of ours can register one, it outlasts whoever sends until the end.
import zmq.utils.garbage

from edldist.address import Address, is_ipv6, listening_hosts, needs_ipv6, parse_address, why_unresolved
from edldist.errors import ConfigError
from edldist.keys.open_link import check_open
from edldist.wire import moving
from edldist.wire.traffic import Traffic
from edldist.wire.transport import Link
from edldist.wire.zmq.backlog import Backlog
from edldist.wire.zmq.endpoints import Endpoint, ZmqHub, ZmqLink
from edldist.wire.zmq.handshakes import Handshakes
from edldist.wire.zmq.zap import Doorkeeper

if TYPE_CHECKING:
    from edldist.wire.shm.sharing import Sharing
    from edldist.wire.zmq.keys import SocketKeys

__all__ = ["ZmqPoller"]

logger = logging.getLogger(__name__)

_LINGER_MS = 2_000
_HANDSHAKE_MS = 5_000
_RECONNECT_MS = 50
_RECONNECT_MAX_MS = 1_000
# TCP waits longer after each packet that nobody confirmed, and would find a healed network only after
# as long again as it was gone. A connection that gave up is made anew at once.
_UNCONFIRMED_MS = 5_000
_CONNECT_MS = 2_000
_QUEUED_MESSAGES = 4_096
_LEAST_QUEUED_MESSAGES = 16
# Thousands come back at once to a coordinator that was restarted; whom the system turns away tries
# again only after a second, then two, then four.
_BACKLOG = 4_096
_SWEEP_S = 5.0
_NONCE_BYTES = 8
_ROUTE_BYTES = 255 - 1 - 2 * _NONCE_BYTES  # a route may have 255


class _Bell:
    """An event descriptor that a poller waits on.

    It is closed with its last reference, not with the poller: another thread may be ringing just
    then, and would write into whatever file had got the same number.
    """

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # Invariant: where this is set the descriptor is readable, or whoever set it is about to make it so.
        self._rung = False

    def ring(self) -> None:
        """Wake who waits; one who was rung for and has not cleared yet is about to look anyway."""
        if self._rung:
            return
        try:
            self._rung = True
            os.eventfd_write(self.fd, 1)
        except BaseException:  # such as an interrupt between the two
            self._rung = False
            raise

    def clear(self) -> None:
        os.eventfd_read(self.fd)
        self._rung = False  # last: what was rung for meanwhile is there to be seen as soon as this returns

    def __del__(self) -> None:
        os.close(self.fd)


class ZmqPoller:
    """Owns one context, its sockets and an event descriptor that other threads may ring."""

    def __init__(
        self,
        max_frame_bytes: int,
        max_header_bytes: int,
        max_unread_bytes: int,
        shared_memory: bool,
        tensors: bool,
        keys: SocketKeys | None,
    ) -> None:
        if tensors:
            from edldist.wire.zmq.heap import keep_freed_memory

            keep_freed_memory()
        if shared_memory:
            # Here, and not in the thread that needs them first: a fork in the middle of an import, such as a
            # worker of a data loader, would wait for the end of that import for ever.
            importlib.import_module("edldist.wire.shm.sharing")
            importlib.import_module("edldist.wire.shm.pairing")
        self.traffic = Traffic()
        self._context = zmq.Context(io_threads=1)
        self._keys = keys
        self._doorkeeper: Doorkeeper | None = None
        self._handshakes: dict[object, Handshakes] = {}  # by the socket that tells of them
        self._max_frame_bytes = max_frame_bytes
        self._max_header_bytes = max_header_bytes
        self._max_unread_bytes = max_unread_bytes
        self._tensors = tensors
        self._turn = 0
        self._shared_memory = shared_memory
        self._sharing_if_made: Sharing | None = None
        self._next_sweep = 0.0
        self._poller = zmq.Poller()
        self._bell = _Bell()
        self._poller.register(self._bell.fd, zmq.POLLIN)
        self._sockets: set[zmq.Socket[bytes]] = set()
        self._looked_up: set[str] = set()  # hosts, whose names were said not to resolve if they do not
        self._endpoints: weakref.WeakSet[Endpoint] = weakref.WeakSet()
        self._backlogs: dict[object, Backlog] = {}  # by the socket that tells of connections
        self._look_at = math.inf
        self._closed = False

    def bind(self, address: str) -> ZmqHub:
        if self._keys is None:
            check_open(address, "listen at")
        *others, last = _to_bind(address)
        for place, ipv6 in others:
            with contextlib.suppress(ConfigError):
                return self._bind(place, ipv6)
        return self._bind(*last)

    def _bind(self, address: str, ipv6: bool) -> ZmqHub:
        socket = self._open(zmq.ROUTER, ipv6)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        socket.setsockopt(zmq.BACKLOG, _BACKLOG)
        if not self._tensors:
            # Of the largest messages no connection may hold more than all may together, not even while this
            # process gets no time to look at them. Who sends more is read from later.
            most = max(_LEAST_QUEUED_MESSAGES, self._max_unread_bytes // self._max_frame_bytes)
            socket.setsockopt(zmq.RCVHWM, min(_QUEUED_MESSAGES, most))
        if self._keys is not None:
            self._protect(socket, self._keys)
        backlog = Backlog(
            socket, self._max_unread_bytes, self._max_header_bytes, sealed=self._keys is not None
        )
        try:
            socket.bind(address)
        except zmq.ZMQError as exc:
            backlog.close()
            socket.close()
            raise ConfigError(
                f"cannot listen on {address}: {_why_not(address, exc)}. "
                "Use tcp://HOST:PORT with an address of this machine and a free port (0 picks one)"
            ) from exc
        self._watch(socket)
        if backlog.connections is not None:
            self._backlogs[backlog.connections] = backlog
            self._poller.register(backlog.connections, zmq.POLLIN)
            self._look_at = 0.0
        return ZmqHub(socket, self, backlog)

    def _protect(self, socket: zmq.Socket[bytes], keys: SocketKeys) -> None:
        if self._doorkeeper is None:
            self._doorkeeper = Doorkeeper(self._context, keys.admits)
        keys.bind(socket)

    def connect(self, address: str, identity: str, to: str = "coordinator") -> Link:
        return moving.connect(
            address,
            lambda place: self._connect(place, identity, to),
            lambda file: moving.FileLookup(file, self.wake),
            time.monotonic,
        )

    def _connect(self, address: str, identity: str, to: str) -> ZmqLink:
        target = _target(address)
        if self._keys is None:
            check_open(address, "connect to")
        if target is not None and target.host not in self._looked_up:
            self._looked_up.add(target.host)
            if why := why_unresolved(target.host):
                logger.warning("cannot connect to %s yet: %s; trying on", address, why)
        ipv6 = target is not None and needs_ipv6(*target)

        route = identity.encode()[:_ROUTE_BYTES]
        keys = self._keys
        if keys is None:
            return ZmqLink(lambda: self._dial(address, ipv6, route), self)
        # A name that nobody else knows: who took a route that is in use would get what is sent there.
        route += b"~" + secrets.token_hex(_NONCE_BYTES).encode()
        handshakes = Handshakes(
            *(keys, to, address, lambda protect: self._dial(address, ipv6, route, protect)),
            *(self._watch_handshakes, self._forget_handshakes),
        )
        return ZmqLink(handshakes.dial, self, handshakes)

    def _dial(
        self,
        address: str,
        ipv6: bool,
        identity: bytes,
        protect: Callable[[zmq.Socket[bytes]], None] | None = None,
    ) -> zmq.Socket[bytes]:
        socket = self._open(zmq.DEALER, ipv6)
        socket.setsockopt(zmq.ROUTING_ID, identity)
        try:
            if protect is not None:
                protect(socket)
            socket.connect(address)
        except ConfigError:
            socket.close()
            raise
        except zmq.ZMQError as exc:
            socket.close()
            raise ConfigError(
                f"cannot connect to {address!r}: {exc.strerror.lower()}. Use tcp://HOST:PORT"
            ) from exc
        self._watch(socket)
        return socket

    @property
    def _sharing(self) -> Sharing | None:
        """Made when a large frame is first seen, since it needs numpy, which a coordinator does not."""
        if self._sharing_if_made is None and self._shared_memory:
            from edldist.wire.shm.sharing import Sharing

            self._sharing_if_made = Sharing()
        return self._sharing_if_made

    def wait(self, timeout_s: float) -> None:
        self._turn += 1
        self._sweep()
        now = time.monotonic()
        until = now + max(0.0, timeout_s)
        came = False
        while True:
            if now >= self._look_at:  # nothing wakes a poller for a message that is never finished
                self._look_at = min((each.look(now) for each in self._backlogs.values()), default=math.inf)
            left_s = max(0.0, min(until, self._look_at) - now)
            for ready, _ in self._poller.poll(math.ceil(left_s * 1e3)):
                backlog = self._backlogs.get(ready)
                if backlog is not None:
                    backlog.note_connections()
                    continue
                came = True
                if (handshakes := self._handshakes.get(ready)) is not None:
                    handshakes.note()
                if ready == self._bell.fd:
                    self._bell.clear()
            if came or (now := time.monotonic()) >= until:
                return

    def _drop_backlog(self, backlog: Backlog) -> None:
        if self._backlogs.pop(backlog.connections, None) is not None:
            self._poller.unregister(backlog.connections)
        backlog.close()

    def _sweep(self) -> None:
        """Give back what was shared with peers that are no more."""
        if self._sharing_if_made is None:
            return
        self._sharing_if_made.sweep()
        now = time.monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_S
            for endpoint in list(self._endpoints):
                endpoint._unpair_dead()

    def wake(self) -> None:
        self._bell.ring()

    def close(self, at_once: bool = False) -> None:
        if self._closed:
            return
        self._closed = True
        for handshakes in list(self._handshakes.values()):
            handshakes.close()
        for backlog in list(self._backlogs.values()):
            self._drop_backlog(backlog)
        for socket in list(self._sockets):
            self._forget(socket)
            socket.close(linger=0 if at_once else None)
        for endpoint in self._endpoints:
            endpoint._unpair_all()
        if self._doorkeeper is not None:
            self._doorkeeper.close()
        self._context.term()
        if self._sharing_if_made is not None:
            self._sharing_if_made.close()
        self._poller.unregister(self._bell.fd)

    def _open(self, kind: int, ipv6: bool) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        # Only where it is needed: with it an IPv4 endpoint would call itself [::ffff:127.0.0.1].
        socket.setsockopt(zmq.IPV6, int(ipv6))
        for option, value in (
            (zmq.LINGER, _LINGER_MS),
            (zmq.SNDHWM, _QUEUED_MESSAGES),
            (zmq.RCVHWM, _QUEUED_MESSAGES),
            (zmq.MAXMSGSIZE, self._max_frame_bytes),
            (zmq.HANDSHAKE_IVL, _HANDSHAKE_MS),
            (zmq.RECONNECT_IVL, _RECONNECT_MS),
            (zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS),
            (zmq.TCP_KEEPALIVE, 1),
            (zmq.TCP_MAXRT, _UNCONFIRMED_MS),
            (zmq.CONNECT_TIMEOUT, _CONNECT_MS),
        ):
            socket.setsockopt(option, value)
        return socket

    def _watch(self, socket: zmq.Socket[bytes]) -> None:
        self._sockets.add(socket)
        self._poller.register(socket, zmq.POLLIN)

    def _watch_handshakes(self, events: zmq.Socket[bytes], handshakes: Handshakes) -> None:
        self._handshakes[events] = handshakes
        self._poller.register(events, zmq.POLLIN)

    def _forget_handshakes(self, events: zmq.Socket[bytes]) -> None:
        if self._handshakes.pop(events, None) is not None:
            self._poller.unregister(events)

    def _forget(self, socket: zmq.Socket[bytes]) -> None:
        self._sockets.discard(socket)
        self._poller.unregister(socket)


def _target(address: str) -> Address | None:
    """Host and port of a TCP address, checked before libzmq sees it, which takes port 99999 for 34463."""
    if not address.startswith("tcp://"):
        return None
    return parse_address(address, "cannot listen on or connect to it", port_zero=True)


def _why_not(address: str, exc: zmq.ZMQError) -> str:
    """libzmq takes a name that does not resolve for an interface's, and says that there is no such device."""
    target = _target(address)
    return (target and why_unresolved(target.host)) or str(exc.strerror).lower()


def _to_bind(address: str) -> list[tuple[str, bool]]:
    """What to bind in order to listen at an address, and whether by IPv6, in the order of trying."""
    target = _target(address)
    if target is None:
        return [(address, False)]
    return [(Address(host, target.port).url, is_ipv6(host)) for host in listening_hosts(target.host)]
