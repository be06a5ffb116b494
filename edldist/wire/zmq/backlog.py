"""What the connections of a hub have brought in and nobody has read yet: how much of it is too much.

libzmq reads from a connection for as long as a message is unfinished, however many frames it has, and it
counts finished ones that wait by their number. Neither has a bound in bytes, so a stranger could fill this
process's memory. What can be known from outside is how many bytes the kernel has handed over on each
connection (``TCP_INFO``), and how many were read here; the difference lies in libzmq's queues. When all
connections together exceed a bound, the one that holds most is shut down, which frees what it had.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import sys
from collections.abc import Iterator, Sequence

import zmq

__all__ = ["Backlog"]

logger = logging.getLogger(__name__)

_LOOK_S = 0.25
_LEAST_LOOK_S = 0.05
_FAST_BYTES_S = 1 << 30
"""What a fast network brings: a small bound is looked at more often, or it is passed many times over."""
_SAY_EVERY_S = 30.0
_LOOK_A_CONNECTION_S = 1e-3  # a look at one takes some microseconds
_EVENTS_A_LOOK = 4096
_TCP_INFO_BYTES = 136
_RECEIVED_AT = 128  # tcpi_bytes_received in struct tcp_info, since Linux 4.1
_LONG_FRAME_BYTES = 255  # a frame has a head of two bytes (ZMTP 3.0), and one that is longer of nine
_SEAL_BYTES = 33  # of CURVE: its command's name, a number, a code over the content, and flags


class Backlog:
    """Watches the connections of one bound socket. Owned by the thread of its poller.

    Does nothing where the system does not count (other systems than Linux, other transports than TCP).
    Finished messages of a connection that was closed are read in their turn, and not counted meanwhile.
    What comes between two looks is not bounded. They are a quarter of a second apart, a twentieth where the
    bound is small, as a coordinator's is, and a second for a thousand connections.

    Args:
        bound: a socket, before it is bound.
        most_bytes: that all its connections together may hold unread.
        sealed: whether frames are encrypted, and so each a little longer on its way.
    """

    def __init__(self, bound: zmq.Socket[bytes], most_bytes: int, sealed: bool = False) -> None:
        self._socket = bound
        self._most_bytes = most_bytes
        self._seal_bytes = _SEAL_BYTES if sealed else 0
        self._read: dict[int, int] = {}  # bytes read of each connection that is open, by its descriptor
        self._look_s = min(_LOOK_S, max(_LEAST_LOOK_S, most_bytes / _FAST_BYTES_S))
        self._next_look = 0.0
        self._say_at = 0.0
        self._unsaid = 0
        self.connections: zmq.Socket[bytes] | None = None
        """Tells of connections that are made and closed; see ``note_connections``."""
        self.cut = 0
        """Connections that were shut down for what they held."""
        if sys.platform.startswith("linux"):
            address = f"inproc://backlog-{bound.FD}"
            bound.monitor(address, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED)
            self.connections = bound.context.socket(zmq.PAIR)
            self.connections.setsockopt(zmq.RCVHWM, 0)  # a full one would hold up libzmq's own thread
            self.connections.connect(address)

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._read)

    def read(self, routing_id: zmq.Frame, parts: Sequence[memoryview]) -> None:
        """Count one message that was read.

        Args:
            routing_id: its first part, which libzmq made.
            parts: the others, which travelled.
        """
        if self.connections is None:
            return
        try:
            source = int(routing_id.get(zmq.SRCFD))
        except zmq.ZMQError:
            return  # a protocol before ZMTP 3, which none of ours speaks: it counts as unread for ever
        if source not in self._read:
            self.note_connections()
        if source in self._read:
            travelled = 0
            for part in parts:
                size = part.nbytes + self._seal_bytes
                travelled += size + (9 if size > _LONG_FRAME_BYTES else 2)
            self._read[source] += travelled

    def held(self) -> dict[int, int]:
        """Bytes that are not read yet, and some hundred of the handshake, by each connection's descriptor."""
        held = {}
        for source, read in list(self._read.items()):
            received = _received(source)
            if received is None:
                del self._read[source]
            else:
                held[source] = received - read
        return held

    def look(self, now: float) -> float:
        """Cut off whoever holds most, if all together hold too much.

        Args:
            now: monotonic seconds.

        Returns:
            When to look again.
        """
        self.note_connections()
        if now >= self._next_look:
            self._next_look = now + max(self._look_s, _LOOK_A_CONNECTION_S * len(self._read))
            held = self.held()
            total = sum(max(0, unread) for unread in held.values())
            for source, unread in sorted(held.items(), key=lambda item: item[1], reverse=True):
                if total <= self._most_bytes:
                    break
                total -= unread
                self._cut(source, unread, now)
        return self._next_look

    def close(self) -> None:
        if self.connections is not None:
            if not self._socket.closed:
                self._socket.disable_monitor()
            self.connections.close()
            self.connections = None

    def note_connections(self) -> None:
        """Learn which connections there are.

        To be called as soon as ``connections`` has something, so that nothing that is read counts for a
        connection that had its descriptor before.
        """
        if self.connections is None:
            return
        with contextlib.suppress(zmq.Again):
            for _ in range(_EVENTS_A_LOOK):
                event, source = struct.unpack("=HI", self.connections.recv_multipart(zmq.NOBLOCK)[0])
                if event == zmq.EVENT_ACCEPTED:
                    self._read[source] = 0
                else:
                    self._read.pop(source, None)

    def _cut(self, source: int, unread: int, now: float) -> None:
        del self._read[source]
        with contextlib.suppress(OSError), _borrowed(source) as connection:
            # The number may belong to something else of this process by now.
            if connection.getsockname()[1] != _port(self._socket):
                return
            peer = connection.getpeername()[0]
            connection.shutdown(socket.SHUT_RDWR)
            self.cut += 1
            self._say(peer, unread, now)

    def _say(self, peer: str, unread: int, now: float) -> None:
        """One line in a while: who was cut off connects again at once."""
        if now < self._say_at:
            self._unsaid += 1
            return
        logger.warning(
            "cut off a connection from %s at %s: %d MiB of it waited unread, or unfinished; "
            "all connections together may hold %d MiB%s",
            peer,
            self._socket.getsockopt_string(zmq.LAST_ENDPOINT),
            unread >> 20,
            self._most_bytes >> 20,
            f" ({self._unsaid} more since the last such line)" if self._unsaid else "",
        )
        self._say_at, self._unsaid = now + _SAY_EVERY_S, 0


@contextlib.contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """A socket of libzmq's, which stays its own."""
    borrowed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=descriptor)
    try:
        yield borrowed
    finally:
        borrowed.detach()


def _received(descriptor: int) -> int | None:
    """Bytes that came in on a connection since it began; None if there is none of this number."""
    try:
        with _borrowed(descriptor) as connection:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return None
    if len(info) < _TCP_INFO_BYTES:
        return None
    received: int = struct.unpack_from("=Q", info, _RECEIVED_AT)[0]
    return received


def _port(bound: zmq.Socket[bytes]) -> int:
    return int(bound.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
