"""Hubs and links over ZeroMQ, with every default of libzmq that is unsafe set to something safe."""

from __future__ import annotations

import errno
import logging
import math
import os
import time
from collections.abc import Callable

import zmq

from edldist.errors import ConfigError, PeerUnreachableError, ProtocolVersionError, WireError
from edldist.wire.address import parse_address
from edldist.wire.messages import Message, Refused, decode, encode
from edldist.wire.transport import Frames, Received

__all__ = ["CONTROL_FRAME_BYTES", "MAX_FRAME_BYTES", "MAX_FRAMES", "ZmqTransport"]

logger = logging.getLogger(__name__)

MAX_FRAME_BYTES = 1 << 30
"""Largest single frame of the data path: the inputs or labels of one tensor of one task."""
CONTROL_FRAME_BYTES = 16 << 20
"""Largest frame at a coordinator, which never sees a tensor."""
MAX_FRAMES = 8192
"""Most frames of one message; a task has one for each of its tensors."""

_LINGER_MS = 2_000
_HANDSHAKE_MS = 5_000
_RECONNECT_MS = 50
_RECONNECT_MAX_MS = 1_000
_STUCK_S = 5.0
# TCP waits longer after each packet that nobody confirmed, and would find a healed network only after
# as long again as it was gone. A connection that gave up is made anew at once.
_UNCONFIRMED_MS = 5_000
_CONNECT_MS = 2_000
_QUEUED_MESSAGES = 4_096


class _Endpoint:
    """What hubs and links share: one socket, receiving, and the count of what was garbage."""

    def __init__(self, socket: zmq.Socket[bytes], poller: ZmqPoller) -> None:
        self._socket = socket
        self._poller = poller
        self.garbage = 0

    @property
    def address(self) -> str:
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def _receive_frames(self) -> list[zmq.Frame] | None:
        try:
            return self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None

    def _parse(self, peer: bytes, frames: list[zmq.Frame]) -> Received:
        if not frames or len(frames) > MAX_FRAMES:
            raise WireError(f"a message of {len(frames)} frames (1 to {MAX_FRAMES} are allowed)")
        return Received(peer, decode(frames[0].bytes), [frame.buffer for frame in frames[1:]])

    def _drop(self, peer: bytes, reason: Exception) -> None:
        self.garbage += 1
        if self.garbage == 1:
            logger.warning(
                "dropped a malformed message at %s from %r: %s (further ones are only counted)",
                self.address,
                peer[:32],
                reason,
            )

    def close(self) -> None:
        if not self._socket.closed:
            self._poller._forget(self._socket)
            self._socket.close()


class ZmqHub(_Endpoint):
    """A ROUTER that refuses to drop silently: a send to a peer that is gone raises."""

    def send(self, peer: bytes, message: Message, frames: Frames = ()) -> None:
        try:
            self._socket.send_multipart([peer, encode(message), *frames], zmq.NOBLOCK, copy=not frames)
        except zmq.Again as exc:
            raise PeerUnreachableError(
                f"peer {peer!r} takes nothing in any more (its queue is full)"
            ) from exc
        except zmq.ZMQError as exc:
            if exc.errno != errno.EHOSTUNREACH:
                raise
            raise PeerUnreachableError(f"peer {peer!r} is gone") from exc

    def receive(self) -> Received | None:
        while (frames := self._receive_frames()) is not None:
            peer = frames[0].bytes
            try:
                return self._parse(peer, frames[1:])
            except ProtocolVersionError as exc:
                self._drop(peer, exc)
                self._refuse(peer, str(exc))
            except WireError as exc:
                self._drop(peer, exc)
        return None

    def _refuse(self, peer: bytes, reason: str) -> None:
        try:
            self.send(peer, Refused(reason=reason))
        except PeerUnreachableError:
            logger.debug("peer %r left before it could be refused", peer)


class ZmqLink(_Endpoint):
    """A DEALER that keeps what it was given until the hub is there, up to its queue's length.

    ``receive`` raises ``ProtocolVersionError`` when the hub speaks another version: nothing that
    is sent on this link can ever be understood.

    libzmq reconnects after a lost connection, but never again after a protocol error (something
    else answered at the address, or a frame was too large): such a socket takes nothing in, for
    ever. So one that has taken nothing for ``_STUCK_S`` is replaced, with what it had queued.
    """

    def __init__(self, socket: zmq.Socket[bytes], poller: ZmqPoller, renew: Callable[[], zmq.Socket[bytes]]):
        super().__init__(socket, poller)
        self._renew = renew
        self._stuck_since: float | None = None

    def send(self, message: Message, frames: Frames = ()) -> bool:
        sent = self._try_send(message, frames)
        now = time.monotonic()
        if sent:
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since > _STUCK_S:
            logger.warning("connecting to %s anew: nothing left for %g s", self.address, _STUCK_S)
            fresh = self._renew()
            self._poller._forget(self._socket)
            self._socket.close(linger=0)
            self._socket = fresh
            self._stuck_since = None
            sent = self._try_send(message, frames)
        return sent

    def _try_send(self, message: Message, frames: Frames) -> bool:
        try:
            self._socket.send_multipart([encode(message), *frames], zmq.NOBLOCK, copy=not frames)
        except zmq.Again:
            return False
        return True

    def receive(self) -> Received | None:
        while (frames := self._receive_frames()) is not None:
            try:
                return self._parse(b"", frames)
            except ProtocolVersionError:
                raise
            except WireError as exc:
                self._drop(b"", exc)
        return None


class _Bell:
    """An event descriptor that a poller waits on.

    It is closed with its last reference, not with the poller: another thread may be ringing just
    then, and would write into whatever file had got the same number.
    """

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ring(self) -> None:
        os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        os.eventfd_read(self.fd)

    def __del__(self) -> None:
        os.close(self.fd)


class ZmqPoller:
    """Owns one context, its sockets and an event descriptor that other threads may ring."""

    def __init__(self, max_frame_bytes: int) -> None:
        self._context = zmq.Context(io_threads=1)
        self._max_frame_bytes = max_frame_bytes
        self._poller = zmq.Poller()
        self._bell = _Bell()
        self._poller.register(self._bell.fd, zmq.POLLIN)
        self._sockets: set[zmq.Socket[bytes]] = set()
        self._closed = False

    def bind(self, address: str) -> ZmqHub:
        _check(address)
        socket = self._open(zmq.ROUTER, address)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        try:
            socket.bind(address)
        except zmq.ZMQError as exc:
            socket.close()
            raise ConfigError(
                f"cannot listen on {address}: {exc.strerror.lower()}. "
                "Use tcp://HOST:PORT with an address of this machine and a free port (0 picks one)"
            ) from exc
        self._watch(socket)
        return ZmqHub(socket, self)

    def connect(self, address: str, identity: str) -> ZmqLink:
        _check(address)

        def dial() -> zmq.Socket[bytes]:
            return self._dial(address, identity.encode()[:255])

        return ZmqLink(dial(), self, dial)

    def _dial(self, address: str, identity: bytes) -> zmq.Socket[bytes]:
        socket = self._open(zmq.DEALER, address)
        socket.setsockopt(zmq.ROUTING_ID, identity)
        try:
            socket.connect(address)
        except zmq.ZMQError as exc:
            socket.close()
            raise ConfigError(
                f"cannot connect to {address!r}: {exc.strerror.lower()}. Use tcp://HOST:PORT"
            ) from exc
        self._watch(socket)
        return socket

    def wait(self, timeout_s: float) -> None:
        for ready, _ in self._poller.poll(math.ceil(max(0.0, timeout_s) * 1e3)):
            if ready == self._bell.fd:
                self._bell.clear()

    def wake(self) -> None:
        self._bell.ring()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for socket in list(self._sockets):
            self._forget(socket)
            socket.close()
        self._context.term()
        self._poller.unregister(self._bell.fd)

    def _open(self, kind: int, address: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        # Only for literal IPv6: with it an IPv4 endpoint would call itself [::ffff:127.0.0.1].
        socket.setsockopt(zmq.IPV6, int("[" in address))
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

    def _forget(self, socket: zmq.Socket[bytes]) -> None:
        self._sockets.discard(socket)
        self._poller.unregister(socket)


def _check(address: str) -> None:
    """libzmq takes port 99999 for 34463, so TCP addresses are checked before it sees them."""
    if address.startswith("tcp://"):
        parse_address(address, "cannot listen on or connect to it", port_zero=True)


class ZmqTransport:
    """The real transport.

    Args:
        max_frame_bytes: a peer that sends a larger frame is disconnected by the socket.
    """

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self.max_frame_bytes = max_frame_bytes

    def poller(self) -> ZmqPoller:
        return ZmqPoller(self.max_frame_bytes)
