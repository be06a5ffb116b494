"""Hubs and links over ZeroMQ, with every default of libzmq that is unsafe set to something safe."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import zmq

from edldist.errors import ConfigError, PeerUnreachableError, ProtocolVersionError, WireError
from edldist.wire.address import parse_address
from edldist.wire.messages import Message, Refused, decode, encode
from edldist.wire.offers import SHARED_FROM_BYTES, SHARING_MAGIC, Decline, decode_sharing, encode_sharing
from edldist.wire.transport import Buffer, Outgoing, Piece, Received, payload

if TYPE_CHECKING:
    from edldist.wire.pairing import Pairing, Wrapped
    from edldist.wire.sharing import Sharing

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
# Thousands come back at once to a coordinator that was restarted; whom the system turns away tries
# again only after a second, then two, then four.
_BACKLOG = 4_096
_SWEEP_S = 5.0


class _Endpoint(ABC):
    """What hubs and links share: one socket, receiving, and the count of what was garbage.

    ``_pairings`` are the peers with which memory may be shared: those to which, or from which, a
    large frame went. A coordinator has none.
    """

    def __init__(self, socket: zmq.Socket[bytes], poller: ZmqPoller) -> None:
        self._socket = socket
        self._poller = poller
        self._pairings: dict[bytes, Pairing] = {}
        self.garbage = 0
        poller._endpoints.add(self)

    @property
    def address(self) -> str:
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def _receive_frames(self) -> list[memoryview] | None:
        # Asking first costs a third of the exception that says no.
        if not int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
            return None
        try:
            if not self._poller._tensors:  # small messages: copies cost less than objects that own them
                return [memoryview(part) for part in self._socket.recv_multipart(zmq.NOBLOCK)]
            return [frame.buffer for frame in self._socket.recv_multipart(zmq.NOBLOCK, copy=False)]
        except zmq.Again:  # its connection ended in between, and took it along
            return None

    def _queue(self, parts: Sequence[Buffer]) -> None:
        """Hand over one message without blocking: small parts as copies, large ones as they are."""
        *others, last = parts
        for part in others:
            self._socket.send(part, zmq.SNDMORE | zmq.NOBLOCK, copy=_is_small(part))
        self._socket.send(last, zmq.NOBLOCK, copy=_is_small(last))

    def _parse(self, peer: bytes, buffers: list[memoryview]) -> Received | None:
        """The message of some frames; None if it was between the two transports."""
        if not buffers or len(buffers) > MAX_FRAMES:
            raise WireError(f"a message of {len(buffers)} frames (1 to {MAX_FRAMES} are allowed)")
        sharing = buffers[0][: len(SHARING_MAGIC)] == SHARING_MAGIC
        if sharing:
            unwrapped = self._unwrap(peer, buffers)
            if unwrapped is None:
                return None
            buffers = unwrapped
        return Received(peer, decode(buffers[0]), buffers[1:], own_memory=not sharing)

    def _wrap(self, peer: bytes, message: Message, frames: Outgoing) -> Wrapped | None:
        """The message with its large frames by reference; None if everything goes by socket."""
        if self._poller._sharing is None or all(map(_is_small, frames)):
            return None
        pairing = self._pairings.get(peer)
        if pairing is None:
            pairing = self._pairings[peer] = self._new_pairing(peer, self._poller._sharing)
        return pairing.wrap(encode(message), frames)

    def _unwrap(self, peer: bytes, buffers: list[memoryview]) -> list[memoryview] | None:
        if self._poller._sharing is None:
            decode_sharing(buffers[0])
            self._send_sharing(peer, encode_sharing(Decline("it is switched off on the other side")))
            return None
        pairing = self._pairings.get(peer)
        if pairing is not None:
            return pairing.unwrap(buffers)
        pairing = self._new_pairing(peer, self._poller._sharing)
        unwrapped = pairing.unwrap(buffers)
        if pairing.met:  # nothing is kept for strangers
            self._pairings[peer] = pairing
        return unwrapped

    def _new_pairing(self, peer: bytes, sharing: Sharing) -> Pairing:
        from edldist.wire.pairing import Pairing

        return Pairing(
            sharing,
            lambda raw: self._send_sharing(peer, raw),
            repr(peer.decode(errors="replace")) if peer else self.address,
            self._poller._max_frame_bytes,
        )

    def _unpair(self, peer: bytes) -> None:
        pairing = self._pairings.pop(peer, None)
        if pairing is not None:
            pairing.close()

    @abstractmethod
    def _send_sharing(self, peer: bytes, raw: bytes) -> None:
        """Send a message about shared memory, or drop it if the peer takes nothing in now."""

    def _drop(self, peer: bytes, reason: Exception) -> None:
        self.garbage += 1
        if self.garbage == 1:
            logger.warning(
                "dropped a malformed message at %s from %r: %s (further ones are only counted)",
                self.address,
                peer[:32],
                reason,
            )

    def _unpair_dead(self) -> None:
        for peer, pairing in list(self._pairings.items()):
            if pairing.met and not pairing.alive:
                self._unpair(peer)

    def _unpair_all(self) -> None:
        for peer in list(self._pairings):
            self._unpair(peer)

    def close(self) -> None:
        self._unpair_all()
        self._poller._endpoints.discard(self)
        if not self._socket.closed:
            self._poller._forget(self._socket)
            self._socket.close()


class ZmqHub(_Endpoint):
    """A ROUTER that refuses to drop silently: a send to a peer that is gone raises."""

    def send(self, peer: bytes, message: Message, frames: Outgoing = ()) -> None:
        wrapped = self._wrap(peer, message, frames)
        raw = wrapped.raw if wrapped is not None else [encode(message), *map(payload, frames)]
        try:
            self._queue([peer, *raw])
        except zmq.Again as exc:
            self._unpair(peer)
            raise PeerUnreachableError(
                f"peer {peer!r} takes nothing in any more (its queue is full)"
            ) from exc
        except zmq.ZMQError as exc:
            if exc.errno != errno.EHOSTUNREACH:
                raise
            self._unpair(peer)
            raise PeerUnreachableError(f"peer {peer!r} is gone") from exc

    def _send_sharing(self, peer: bytes, raw: bytes) -> None:
        # Whoever is unreachable will be found so by the next message.
        with contextlib.suppress(zmq.ZMQError):
            self._socket.send_multipart([peer, raw], zmq.NOBLOCK)

    def receive(self) -> Received | None:
        while (frames := self._receive_frames()) is not None:
            peer = bytes(frames[0])
            try:
                received = self._parse(peer, frames[1:])
                if received is not None:
                    return received
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

    def send(self, message: Message, frames: Outgoing = ()) -> bool:
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

    def _try_send(self, message: Message, frames: Outgoing) -> bool:
        wrapped = self._wrap(b"", message, frames)
        raw = wrapped.raw if wrapped is not None else [encode(message), *map(payload, frames)]
        try:
            self._queue(raw)
        except zmq.Again:
            if wrapped is not None:
                self._pairings[b""].unsent(wrapped)
            return False
        return True

    def _send_sharing(self, peer: bytes, raw: bytes) -> None:
        with contextlib.suppress(zmq.Again):
            self._socket.send(raw, zmq.NOBLOCK)

    def receive(self) -> Received | None:
        while (frames := self._receive_frames()) is not None:
            try:
                received = self._parse(b"", frames)
                if received is not None:
                    return received
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

    def __init__(self, max_frame_bytes: int, shared_memory: bool, tensors: bool) -> None:
        if tensors:
            from edldist.wire.heap import keep_freed_memory

            keep_freed_memory()
        self._context = zmq.Context(io_threads=1)
        self._max_frame_bytes = max_frame_bytes
        self._tensors = tensors
        self._shared_memory = shared_memory
        self._made: Sharing | None = None
        self._next_sweep = 0.0
        self._poller = zmq.Poller()
        self._bell = _Bell()
        self._poller.register(self._bell.fd, zmq.POLLIN)
        self._sockets: set[zmq.Socket[bytes]] = set()
        self._endpoints: weakref.WeakSet[_Endpoint] = weakref.WeakSet()
        self._closed = False

    def bind(self, address: str) -> ZmqHub:
        _check(address)
        socket = self._open(zmq.ROUTER, address)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        socket.setsockopt(zmq.BACKLOG, _BACKLOG)
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

    @property
    def _sharing(self) -> Sharing | None:
        """Made when a large frame is first seen, since it needs numpy, which a coordinator does not."""
        if self._made is None and self._shared_memory:
            from edldist.wire.sharing import Sharing

            self._made = Sharing()
        return self._made

    def wait(self, timeout_s: float) -> None:
        self._sweep()
        for ready, _ in self._poller.poll(math.ceil(max(0.0, timeout_s) * 1e3)):
            if ready == self._bell.fd:
                self._bell.clear()

    def _sweep(self) -> None:
        """Give back what was shared with peers that are no more."""
        if self._made is None:
            return
        self._made.sweep()
        now = time.monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_S
            for endpoint in list(self._endpoints):
                endpoint._unpair_dead()

    def wake(self) -> None:
        self._bell.ring()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for socket in list(self._sockets):
            self._forget(socket)
            socket.close()
        for endpoint in self._endpoints:
            endpoint._unpair_all()
        self._context.term()
        if self._made is not None:
            self._made.close()
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


def _is_small(frame: Buffer | Piece) -> bool:
    return memoryview(payload(frame)).nbytes < SHARED_FROM_BYTES


def _wanted() -> bool:
    value = os.environ.get("EDLDIST_SHARED_MEMORY", "1")
    if value not in ("0", "1"):
        raise ConfigError(f"EDLDIST_SHARED_MEMORY={value!r}: use 1 (the default) or 0")
    return value == "1"


class ZmqTransport:
    """The real transport.

    Args:
        max_frame_bytes: a peer that sends a larger frame is disconnected by the socket.
        shared_memory: whether large frames go through shared memory where both ends can map each
            other's. None: as ``EDLDIST_SHARED_MEMORY`` says, which is yes unless it is ``0``.
        tensors: whether any travel here. A coordinator has none.

    Raises:
        ConfigError: that variable has another value.
    """

    def __init__(
        self,
        max_frame_bytes: int = MAX_FRAME_BYTES,
        shared_memory: bool | None = None,
        *,
        tensors: bool = True,
    ) -> None:
        self.max_frame_bytes = max_frame_bytes
        self.shared_memory = tensors and (_wanted() if shared_memory is None else shared_memory)
        self.tensors = tensors

    def poller(self) -> ZmqPoller:
        return ZmqPoller(self.max_frame_bytes, self.shared_memory, self.tensors)
