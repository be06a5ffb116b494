"""Hubs and links over ZeroMQ: one socket each, and what it takes for a message."""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import zmq

from edldist.errors import ConfigError, PeerUnreachableError, ProtocolVersionError, WireError
from edldist.keys.keyring import KeyNews, key_news
from edldist.wire.messages import MAX_FRAMES, PROTOCOL, KeyRetired, Message, TokensWanted, decode, encode
from edldist.wire.shm.offers import SHARED_FROM_BYTES, SHARING_MAGIC, Decline, decode_sharing, encode_sharing
from edldist.wire.transport import SKIPPED_A_TURN, Buffer, Outgoing, Piece, Received, Sender, payload

if TYPE_CHECKING:
    from edldist.wire.shm.pairing import Pairing, Wrapped
    from edldist.wire.shm.sharing import Sharing
    from edldist.wire.zmq.backlog import Backlog
    from edldist.wire.zmq.handshakes import Handshakes
    from edldist.wire.zmq.keys import SocketKeys
    from edldist.wire.zmq.poller import ZmqPoller

__all__ = ["Endpoint", "ZmqHub", "ZmqLink"]

logger = logging.getLogger(__name__)

_STUCK_S = 5.0
_LENT_FROM_BYTES = 256 << 10
"""To lend memory to libzmq wakes a thread of pyzmq's when it comes back: a smaller part is copied sooner."""
_HUB = Sender(b"")

# Plain numbers: to join two of zmq's flags, or to compare one, takes as long as to hand over a small frame.
_AT_ONCE = int(zmq.NOBLOCK)
_AND_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS = int(zmq.EVENTS)
_CAN_READ = int(zmq.POLLIN)
_DISCARDED_AT_ONCE = 4_096
"""Frames of a message that has too many, in one call: some milliseconds."""


class Endpoint(ABC):
    """What hubs and links share: one socket, receiving, and the count of what was garbage.

    ``_pairings`` are the peers with which memory may be shared: those to which, or from which, a
    large frame went. A coordinator has none.
    """

    def __init__(self, socket: zmq.Socket[bytes], poller: ZmqPoller) -> None:
        self._socket = socket
        self._poller = poller
        self._pairings: dict[bytes, Pairing] = {}
        self.garbage = 0
        self._said: set[type[Exception]] = set()  # the kinds of garbage that the log has
        self._turn = 0  # of the poller, in which something was skipped last
        self._skipped = 0  # messages of that turn which were none for the service
        self._discarding = False  # in the midst of a message of too many frames
        poller._endpoints.add(self)

    @property
    def address(self) -> str:
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def _can_read(self) -> bool:
        # Asking first costs a third of the exception that says no.
        return bool(self._socket.get(_EVENTS) & _CAN_READ)  # type: ignore[operator]

    def _receive_frames(self) -> list[memoryview] | None:
        if (self._discarding and self._discard()) or not self._can_read():
            return None
        try:
            return self._rest()
        except zmq.Again:  # its connection ended in between, and took it along
            return None

    def _rest(self) -> list[memoryview]:
        """What has come of a message and was not read yet; of one that is too long a little too much."""
        receive = self._socket.recv
        frame = receive(_AT_ONCE, copy=False)
        parts = [frame.buffer]
        while frame.more:
            if len(parts) > MAX_FRAMES:
                self._discarding = True
                break
            frame = receive(_AT_ONCE, copy=False)
            parts.append(frame.buffer)
        return parts

    def _discard(self) -> bool:
        """Go on with what is left of a message of too many frames; whether more is left.

        Millions of frames of no bytes take seconds to be read: others get their turn meanwhile.
        """
        receive = self._socket.recv
        with contextlib.suppress(zmq.Again):  # its connection took the rest along
            for _ in range(_DISCARDED_AT_ONCE):
                if not receive(_AT_ONCE, copy=False).more:
                    break
            else:
                return True
        self._discarding = False
        return False

    def _queue(self, parts: Sequence[Buffer]) -> None:
        """Hand over one message without blocking: small parts as copies, large ones as they are.

        Where no tensors travel all are copies, however large: memory that is lent to libzmq takes pyzmq to
        give it back, which it does no longer while the interpreter ends, when last words are said.
        """
        *others, last = parts
        for part in others:
            self._socket.send(part, _AND_MORE, copy=self._is_copied(part))
        self._socket.send(last, _AT_ONCE, copy=self._is_copied(last))

    def _is_copied(self, part: Buffer) -> bool:
        return not self._poller._tensors or memoryview(part).nbytes < _LENT_FROM_BYTES

    def _parse(self, sender: Sender, buffers: list[memoryview]) -> Received | None:
        """The message of some frames; None if it was between the two transports."""
        if not buffers or len(buffers) > MAX_FRAMES:
            found = "more" if self._discarding else len(buffers)
            raise WireError(f"a message of {found} frames (1 to {MAX_FRAMES} are allowed)")
        if len(buffers) > 1 and not self._poller._tensors:
            raise WireError(f"a message with {len(buffers) - 1} tensors, where none travel")
        sharing = buffers[0][: len(SHARING_MAGIC)] == SHARING_MAGIC
        if sharing:
            unwrapped = self._unwrap(sender.route, buffers)
            if unwrapped is None:
                return None
            by_socket, buffers = buffers[2:], unwrapped
            frames = buffers[1:]
        else:
            by_socket = frames = buffers[1:]
        message = decode(buffers[0], self._poller._max_header_bytes)
        if frames:
            self._poller.traffic.received(by_socket, frames)
        return Received(sender, message, frames, own_memory=not sharing)

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
        from edldist.wire.shm.pairing import Pairing

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

    def _drop(self, sender: Sender, reason: Exception) -> None:
        self.garbage += 1
        kind = type(reason)
        if kind not in self._said:
            self._said.add(kind)
            what = "a message" if kind is ProtocolVersionError else "a malformed message"
            logger.warning(
                "dropped %s at %s from %s: %s (further ones are only counted)",
                *(what, self.address, sender, reason),
            )

    def _may_skip(self) -> bool:
        """Whether another message may follow one that was none for the service, in this turn."""
        if self._turn != self._poller._turn:
            self._turn = self._poller._turn
            self._skipped = 0
        self._skipped += 1
        return self._skipped < SKIPPED_A_TURN

    def _unpair_dead(self) -> None:
        for peer, pairing in list(self._pairings.items()):
            if pairing.met and not pairing.alive:
                self._unpair(peer)

    def _unpair_all(self) -> None:
        for peer in list(self._pairings):
            self._unpair(peer)

    def close(self, at_once: bool = False) -> None:
        self._unpair_all()
        self._poller._endpoints.discard(self)
        if not self._socket.closed:
            self._poller._forget(self._socket)
            self._socket.close(linger=0 if at_once else None)


class ZmqHub(Endpoint):
    """A ROUTER that refuses to drop silently: a send to a peer that is gone raises."""

    def __init__(self, socket: zmq.Socket[bytes], poller: ZmqPoller, backlog: Backlog) -> None:
        super().__init__(socket, poller)
        self.backlog = backlog
        self._key = self._role = self._owner = ""  # of who sent the message that was read last
        self._own = "" if poller._keys is None else poller._keys.current
        self._told = None if poller._keys is None else poller._keys.ring
        self._deaf_since: float | None = None  # with a new key, and a port that is not to be had

    @property
    def connected(self) -> int:
        return self.backlog.open

    def key_news(self) -> KeyNews | None:
        keys, before = self._poller._keys, self._told
        if keys is None or before is None or (now := keys.ring) is before or now.own.public != self._own:
            return None
        self._told = now
        return key_news(before, now, time.time())

    def _receive_frames(self) -> list[memoryview] | None:
        # As an endpoint does, but the first part tells which connection the message came by.
        if self._discarding and self._discard():
            return None
        if not self._can_read():
            return None
        try:
            first = self._socket.recv(_AT_ONCE, copy=False)
        except zmq.Again:
            return None
        parts = [first.buffer]
        if first.more:
            parts += self._rest()
        self.backlog.read(first, parts[1:])
        if self._discarding:
            self.backlog.overlong()
        if self._poller._keys is not None:
            self._key, self._role, self._owner = self._poller._keys.sender(first)
        return parts

    def close(self, at_once: bool = False) -> None:
        self._poller._drop_backlog(self.backlog)
        super().close(at_once)

    def send(self, peer: Sender, message: Message, frames: Outgoing = ()) -> None:
        wrapped = self._wrap(peer.route, message, frames)
        raw = wrapped.raw if wrapped is not None else [encode(message), *map(payload, frames)]
        try:
            self._queue([peer.route, *raw])
        except zmq.Again as exc:
            self._unpair(peer.route)
            raise PeerUnreachableError(f"peer {peer} takes nothing in any more (its queue is full)") from exc
        except zmq.ZMQError as exc:
            if exc.errno != errno.EHOSTUNREACH:
                raise
            self._unpair(peer.route)
            raise PeerUnreachableError(f"peer {peer} is gone") from exc
        if frames:
            self._poller.traffic.sent(frames, 0 if wrapped is None else wrapped.shared_bytes)
        if frames or type(message) is TokensWanted:
            self.backlog.tasked(peer.route)

    def _send_sharing(self, peer: bytes, raw: bytes) -> None:
        # Whoever is unreachable will be found so by the next message.
        with contextlib.suppress(zmq.ZMQError):
            self._socket.send_multipart([peer, raw], _AT_ONCE)

    def receive(self) -> Received | None:
        while (frames := self._receive_frames()) is not None:
            peer = Sender(bytes(frames[0]), self._key, self._role, self._owner)
            try:
                if self._poller._keys is not None:
                    self._check(peer)
                received = self._parse(peer, frames[1:])
                if received is not None:
                    self.backlog.heard(peer.route)
                    return received
            except ProtocolVersionError as exc:
                self._drop(peer, exc)
                self._tell_protocol(peer)
            except WireError as exc:
                self._drop(peer, exc)
            self.backlog.skipped()
            if not self._may_skip():
                return None
        if self._poller._keys is not None and self._poller._keys.current != self._own:
            self._rotate(self._poller._keys)
        return None

    def _tell_protocol(self, peer: Sender) -> None:
        """Answer who speaks another protocol with what both understand, which is about as long as nothing."""
        with contextlib.suppress(zmq.ZMQError):  # it left, or takes nothing in
            self._queue([peer.route, PROTOCOL.preface])

    def _rotate(self, keys: SocketKeys) -> None:
        """Listen with the key that this process has now: all connections end, and are made anew with that."""
        place = self.address
        with contextlib.suppress(zmq.ZMQError):
            self._socket.unbind(place)
        own = keys.current
        keys.bind(self._socket)
        try:
            self._socket.bind(place)
        except zmq.ZMQError as exc:  # the former listener is about to close
            now = time.monotonic()
            self._deaf_since = now if self._deaf_since is None else self._deaf_since
            if now - self._deaf_since > _STUCK_S:
                self._deaf_since = now
                logger.warning("nobody can connect to %s, nor has for %g s: %s", place, _STUCK_S, exc)
            return
        self._own, self._deaf_since = own, None
        logger.info("listening on %s with a new key", place)

    def _check(self, peer: Sender) -> None:
        """A key that was good when its link was made may have been retired since.

        Raises:
            WireError: it was.
        """
        if not peer.role:
            with contextlib.suppress(PeerUnreachableError):
                self.send(peer, KeyRetired())
            raise WireError("its key was retired")


class ZmqLink(Endpoint):
    """A DEALER that keeps what it was given until the hub is there, up to its queue's length.

    ``receive`` raises ``ProtocolVersionError`` when the hub is of another revision: nothing that is sent on
    this link can ever be understood.

    libzmq reconnects after a lost connection, but never again after a protocol error (something
    else answered at the address, or a frame was too large): such a socket takes nothing in, for
    ever. So one that has taken nothing for ``_STUCK_S`` is replaced. What it had queued is lost, as it is
    where a handshake wants other keys.
    """

    def __init__(
        self,
        dial: Callable[[], zmq.Socket[bytes]],
        poller: ZmqPoller,
        handshakes: Handshakes | None = None,
    ) -> None:
        super().__init__(dial(), poller)
        self._dial = dial
        self._handshakes = handshakes
        self._stuck_since: float | None = None
        self.renewed = 0

    @property
    def trouble(self) -> str:
        return "" if self._handshakes is None else self._handshakes.trouble

    def send(self, message: Message, frames: Outgoing = ()) -> bool:
        sent = self._try_send(message, frames)
        now = time.monotonic()
        if sent:
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since > _STUCK_S:
            logger.warning("connecting to %s anew: nothing left for %g s", self.address, _STUCK_S)
            self._renew()
            sent = self._try_send(message, frames)
        return sent

    def _renew(self) -> None:
        fresh = self._dial()
        self._poller._forget(self._socket)
        self._socket.close(linger=0)
        self._socket = fresh
        self._stuck_since = None
        self.renewed += 1

    def close(self, at_once: bool = False) -> None:
        if self._handshakes is not None:
            self._handshakes.close()
        super().close(at_once)

    def _try_send(self, message: Message, frames: Outgoing) -> bool:
        wrapped = self._wrap(b"", message, frames)
        raw = wrapped.raw if wrapped is not None else [encode(message), *map(payload, frames)]
        try:
            self._queue(raw)
        except zmq.Again:
            if wrapped is not None:
                self._pairings[b""].unsent(wrapped)
            return False
        if frames:
            self._poller.traffic.sent(frames, 0 if wrapped is None else wrapped.shared_bytes)
        return True

    def _send_sharing(self, peer: bytes, raw: bytes) -> None:
        with contextlib.suppress(zmq.Again):
            self._socket.send(raw, _AT_ONCE)

    def receive(self) -> Received | None:
        while (frames := self._receive_frames()) is not None:
            try:
                received = self._parse(_HUB, frames)
                if received is not None and type(received.message) is KeyRetired:
                    self._retired()
                elif received is not None:
                    return received
            except ProtocolVersionError as exc:
                raise exc.at(self.address) from None
            except WireError as exc:
                self._drop(_HUB, exc)
            if not self._may_skip():
                return None
        if self._handshakes is not None and self._handshakes.due(time.monotonic()):
            try:
                self._renew()
            except ConfigError as exc:  # new keys have none of the other end's role: stay so, and try again
                self._handshakes.put_off(str(exc))
        return None

    def _retired(self) -> None:
        """The hub takes nothing in any more: this process has newer keys, or gets some."""
        if self._handshakes is None:
            raise WireError("it tells of keys where there are none")
        self._handshakes.retired()


def _is_small(frame: Buffer | Piece) -> bool:
    return memoryview(payload(frame)).nbytes < SHARED_FROM_BYTES
