"""What the connections of a hub have brought in and nobody has read yet: how much of it is too much.

libzmq reads from a connection for as long as a message is unfinished, however many frames it has, and it
counts finished ones that wait by their number. Neither has a bound in bytes, so a stranger could fill this
process's memory. What can be known from outside is how many bytes the kernel has handed over on each
connection (``TCP_INFO``), and how many were read here; the difference lies in libzmq's queues. Who exceeds a
bound is shut down, which frees what it had.

A byte on its way may take 32 in memory: frames of no bytes are two long, and 64 in a queue. So who has not
yet been given a task, and has nothing large to say, may hold little.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import socket
import struct
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import zmq

from edldist.wire.zmq.callers import Callers, most_connections

__all__ = ["Backlog"]

logger = logging.getLogger(__name__)

SILENT_BYTES = 256 << 10
"""What a connection may hold before anything well-formed was heard on it: its handshake, and a greeting."""
TASKLESS_BYTES = 8 << 20
"""What all connections without a task may hold of messages that are not finished."""
WORDS = 8_192
"""Messages that one may say at once that was given no task; what is garbage counts as four."""
WORDS_S = 2_000.0
"""How many more a second."""

_GARBAGE_WORDS = 4
_LOOK_S = 0.05
_LOOK_AGAIN_S = 0.01
"""While somebody holds more than a greeting takes."""
_LOOKS_BEHIND = 20
"""A process that has something to read at all of so many looks has had time, and is being flooded."""
_SAY_EVERY_S = 30.0
_LOOK_A_CONNECTION_S = 2e-4  # a look at one takes some microseconds
_EVENTS_A_LOOK = 4096
_TCP_INFO_BYTES = 136
_RECEIVED_AT = 128  # tcpi_bytes_received in struct tcp_info, since Linux 4.1
_LONG_FRAME_BYTES = 255  # a frame has a head of two bytes (ZMTP 3.0), and one that is longer of nine
_SEAL_BYTES = 33  # of CURVE: its command's name, a number, a code over the content, and flags


@dataclass(slots=True)
class _Connection:
    source: int  # its descriptor
    host: str
    read: int = 0  # bytes
    route: bytes | None = None  # of what was well-formed
    tasked: bool = False
    words: float = 0.0  # said, less what it may say in the time since


class Backlog:
    """Watches the connections of one bound socket. Owned by the thread of its poller.

    Does nothing where the system does not count (other systems than Linux, other transports than TCP).
    Finished messages of a connection that was closed are read in their turn, and not counted meanwhile.
    What comes between two looks is not bounded. They are a twentieth of a second apart, a hundredth while
    somebody holds more than a greeting, and a fifth for a thousand connections.

    Bounds of those without a task count once what was finished has been read: a process that got no time to
    read is no reason to hang up on those that wrote.

    Args:
        bound: a socket, before it is bound.
        most_bytes: that all its connections together may hold unread.
        header_bytes: of the longest message from a connection that was given no task.
        sealed: whether frames are encrypted, and so each a little longer on its way.
    """

    def __init__(
        self, bound: zmq.Socket[bytes], most_bytes: int, header_bytes: int, sealed: bool = False
    ) -> None:
        self._socket = bound
        self._most_bytes = most_bytes
        self._taskless_bytes = min(most_bytes, TASKLESS_BYTES)
        self._heard_bytes = header_bytes + SILENT_BYTES
        self._seal_bytes = _SEAL_BYTES if sealed else 0
        self._open: dict[int, _Connection] = {}  # by descriptor
        self._routes: dict[bytes, _Connection] = {}
        self._callers = Callers(most_connections())
        self._last: _Connection | None = None  # by which the message came that was read last
        self._behind = 0  # looks in a row at which something finished waited to be read
        self._next_look = self._looked_at = 0.0
        self._say_at = 0.0
        self._unsaid = 0
        self.connections: zmq.Socket[bytes] | None = None
        """Tells of connections that are made and closed; see ``note_connections``."""
        self.cut = 0
        """Connections that were shut down for what they held or said."""
        self.refused = 0
        """Connections that were shut down as they came (``callers``)."""
        if sys.platform.startswith("linux"):
            address = f"inproc://backlog-{bound.FD}"
            bound.monitor(address, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED)
            self.connections = bound.context.socket(zmq.PAIR)
            self.connections.setsockopt(zmq.RCVHWM, 0)  # a full one would hold up libzmq's own thread
            self.connections.connect(address)

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._open)

    def read(self, routing_id: zmq.Frame, parts: Sequence[memoryview]) -> None:
        """Count one message that was read.

        Args:
            routing_id: its first part, which libzmq made.
            parts: the others, which travelled.
        """
        if self.connections is None:
            return
        self._last = None
        try:
            source = int(routing_id.get(zmq.SRCFD))
        except zmq.ZMQError:
            return  # a protocol before ZMTP 3, which none of ours speaks: it counts as unread for ever
        if source not in self._open:
            self.note_connections()
        connection = self._last = self._open.get(source)
        if connection is not None:
            travelled = 0
            for part in parts:
                size = part.nbytes + self._seal_bytes
                travelled += size + (9 if size > _LONG_FRAME_BYTES else 2)
            connection.read += travelled
            connection.words += 1

    def heard(self, route: bytes) -> None:
        """The message that was read last is well-formed."""
        connection = self._last
        if connection is not None and connection.route != route:
            connection.route = route
            self._routes[route] = connection

    def skipped(self) -> None:
        """The message that was read last is garbage, or of little use."""
        if self._last is not None:
            self._last.words += _GARBAGE_WORDS - 1

    def tasked(self, route: bytes) -> None:
        """A peer was asked for something large, as a task is: its answers may be so, and many."""
        connection = self._routes.get(route)
        if connection is not None:
            connection.tasked = True

    def overlong(self) -> None:
        """The message that was read last has more frames than any may have."""
        if self._last is not None:
            self._cut(self._last, "it sent a message of too many frames")
            self._last = None

    def held(self) -> dict[int, int]:
        """Bytes in libzmq's queues, and some hundred of the handshake, by each connection's descriptor."""
        held = {}
        for source, connection in list(self._open.items()):
            taken = _taken(source)
            if taken is None:
                self._forget(connection)
            else:
                held[source] = taken - connection.read
        return held

    def look(self, now: float) -> float:
        """Cut off who holds too much, and whoever holds most while all together do.

        Args:
            now: monotonic seconds.

        Returns:
            When to look again.
        """
        self.note_connections()
        if now >= self._next_look:
            self._allow(WORDS_S * (now - self._looked_at))
            self._looked_at = now
            suspicious = self._look()
            wait_s = max(_LOOK_AGAIN_S if suspicious else _LOOK_S, _LOOK_A_CONNECTION_S * len(self._open))
            self._next_look = now + wait_s
        return self._next_look

    def _allow(self, words: float) -> None:
        """Let everybody say some more, and hang up on who has said too much."""
        for connection in list(self._open.values()):
            connection.words = max(0.0, connection.words - words)
            if connection.words > WORDS and not connection.tasked:
                self._cut(connection, f"it says more than {WORDS_S:g} messages a second, and has no task")

    def _look(self) -> bool:
        """Whether somebody who has no task holds more than it may without a word."""
        total = taskless = 0
        largest_first = sorted(self.held().items(), key=lambda item: item[1], reverse=True)
        # Looked up after that: what was finished by then can be read now.
        self._behind = self._behind + 1 if int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN else 0
        fair = self._behind % _LOOKS_BEHIND == 0
        held = [(self._open[source], max(0, unread)) for source, unread in largest_first]
        for connection, unread in held:
            total += unread
            taskless += 0 if connection.tasked else unread
        suspicious = False
        for connection, unread in held:
            small = not connection.tasked
            each = self._heard_bytes if connection.route is not None else SILENT_BYTES
            suspicious = suspicious or (small and unread > SILENT_BYTES)
            if total > self._most_bytes:
                bound = f"all connections together may hold {self._most_bytes >> 20} MiB"
            elif fair and small and unread > each:
                bound = f"one that has no task may hold {each >> 10} KiB"
            elif fair and small and taskless > self._taskless_bytes:
                bound = f"those that have no task may hold {self._taskless_bytes >> 20} MiB together"
            else:
                continue
            total -= unread
            taskless -= unread if small else 0
            self._cut(connection, f"{unread >> 10} KiB of it waited unread, or unfinished; {bound}")
        return suspicious

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
                if (former := self._open.get(source)) is not None:
                    self._forget(former)
                if event == zmq.EVENT_ACCEPTED:
                    self._note(source)

    def _note(self, source: int) -> None:
        try:
            with _borrowed(source) as connection:
                host = str(connection.getpeername()[0])
        except OSError:  # it has left
            return
        made = self._open[source] = _Connection(source, host)
        if why := self._callers.came(host, time.monotonic()):
            self._hang_up(made, why)
            self.refused += 1

    def _forget(self, connection: _Connection) -> None:
        del self._open[connection.source]
        self._callers.left(connection.host)
        if connection.route is not None and self._routes.get(connection.route) is connection:
            del self._routes[connection.route]

    def _cut(self, connection: _Connection, why: str) -> None:
        if self._hang_up(connection, why):
            self._callers.fine(connection.host, time.monotonic())
            self.cut += 1

    def _hang_up(self, connection: _Connection, why: str) -> bool:
        """Whether it was there to be hung up on."""
        self._forget(connection)
        with contextlib.suppress(OSError), _borrowed(connection.source) as there:
            # The number may belong to something else of this process by now.
            if there.getsockname()[1] == _port(self._socket):
                there.shutdown(socket.SHUT_RDWR)
                self._say(connection.host, why, time.monotonic())
                return True
        return False

    def _say(self, host: str, why: str, now: float) -> None:
        """One line in a while: who was cut off connects again at once."""
        if now < self._say_at:
            self._unsaid += 1
            return
        logger.warning(
            "cut off a connection from %s at %s: %s%s",
            *(host, self._socket.getsockopt_string(zmq.LAST_ENDPOINT), why),
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


def _taken(descriptor: int) -> int | None:
    """Bytes of a connection that the kernel has handed over since it began; None if there is none.

    What is left in the kernel is bounded there.
    """
    try:
        with _borrowed(descriptor) as connection:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        waiting = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))
    except OSError:
        return None
    if len(info) < _TCP_INFO_BYTES:
        return None
    received: int = struct.unpack_from("=Q", info, _RECEIVED_AT)[0]
    return received - int.from_bytes(waiting, sys.byteorder)


def _port(bound: zmq.Socket[bytes]) -> int:
    return int(bound.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
