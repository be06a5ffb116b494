"""What the servers need of a transport: hubs, links and one thread-bound poller over both.

Two implementations share one contract suite: ``edldist.wire.zmq.transport`` (real sockets) and
``edldist.wire.memory`` (queues in this process, for tests of this library and of its users).

Ownership: a ``Poller`` and everything opened through it belong to one thread. Only
``Poller.wake`` may be called from others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from edldist.wire.messages import Message
from edldist.wire.shm.memfile import FileAddress
from edldist.wire.traffic import Traffic

if TYPE_CHECKING:
    from edldist.keys.keyring import KeyNews

__all__ = [
    "SKIPPED_A_TURN",
    "Buffer",
    "Frames",
    "Hub",
    "Link",
    "Outgoing",
    "Piece",
    "Poller",
    "Received",
    "Sender",
    "Transport",
    "closed_on_error",
    "payload",
]

SKIPPED_A_TURN = 64
"""Messages that are none for a service (garbage, and what transports say to each other) which an endpoint
looks at in one turn of its poller, so that nobody can keep its thread from its other work."""

Buffer = bytes | bytearray | memoryview
Frames = Sequence[Buffer]


class Piece(NamedTuple):
    """A frame in memory that peers on this host may map: they are told where, and nothing is copied.

    Whoever sends it keeps the memory, and the descriptor that ``address`` names, until the answer is
    there. What a peer reads after that is its own loss.

    Attributes:
        memory: the bytes, for peers that cannot map them.
        address: the file in which they lie.
        offset: where in that file they begin.
    """

    memory: memoryview
    address: FileAddress
    offset: int


Outgoing = Sequence[Buffer | Piece]


def payload(frame: Buffer | Piece) -> Buffer:
    """The bytes of a frame, wherever they lie."""
    return frame.memory if isinstance(frame, Piece) else frame


class Sender(NamedTuple):
    """Who sent a message. Services know their peers by this, and a hub sends to it.

    With keys, two senders are the same only if both parts are: a stranger who takes over a route is somebody
    else, and inherits nothing.

    Attributes:
        route: where a hub sends answers: the name under which the sender connected, which it chose
            itself; ``b""`` on a link.
        key: the public key that the sender proved to have; empty while a transport has no keys.
        role: what that key is for; empty while a transport has no keys, and everybody may be anything.
        owner: the name of that key, which the next one has too after a rotation; empty without keys.
    """

    route: bytes
    key: str = ""
    role: str = ""
    owner: str = ""

    def __str__(self) -> str:
        return repr(self.route[:32].decode("utf-8", errors="replace"))


class Received(NamedTuple):
    """One message as it arrived.

    ``sender`` says who sent it. ``frames`` are its raw
    tensor frames; they stay valid as long as someone refers to them. They may be written to, but for
    memory that a peer lends (``Piece``), which is read-only. A frame of lent memory that its owner has
    freed in the meantime is empty. ``own_memory``: nobody else waits for any of them to be dropped.
    """

    sender: Sender
    message: Message
    frames: list[memoryview]
    own_memory: bool = True


class Hub(Protocol):
    """The many-peer end: binds, and addresses each message to one peer."""

    @property
    def address(self) -> str:
        """Where peers connect, with the port that the system chose."""
        ...

    @property
    def garbage(self) -> int:
        """Messages dropped so far because they were malformed."""
        ...

    @property
    def connected(self) -> int:
        """How many links are connected now, as far as that is known; whoever hung up is not."""
        ...

    def key_news(self) -> KeyNews | None:
        """What became of this process's keys since this was asked last; None where nothing has.

        A hub that has another key ended all connections for it, and listens with it now.
        """
        ...

    def send(self, peer: Sender, message: Message, frames: Outgoing = ()) -> None:
        """Queue one message for a peer without blocking.

        Raises:
            PeerUnreachableError: the peer is gone, or takes nothing in any more.
        """
        ...

    def receive(self) -> Received | None:
        """The next well-formed message.

        None when there is none now, or when ``SKIPPED_A_TURN`` others were met since the last ``wait``:
        go on with other work; the next ``wait`` returns at once if more has come.
        """
        ...

    def close(self) -> None: ...


class Link(Protocol):
    """The one-peer end: connects, reconnects by itself, and keeps its order."""

    @property
    def address(self) -> str: ...

    @property
    def garbage(self) -> int: ...

    @property
    def trouble(self) -> str:
        """Why the two ends do not trust each other, and what to do; empty where they do, or nobody knows."""
        ...

    @property
    def renewed(self) -> int:
        """How many times it was made anew by itself. What it had been given until then may be lost."""
        ...

    def send(self, message: Message, frames: Outgoing = ()) -> bool:
        """Queue one message without blocking; False when the queue is full (nothing was sent)."""
        ...

    def receive(self) -> Received | None:
        """As for a hub."""
        ...

    def close(self, at_once: bool = False) -> None:
        """Close it; ``at_once`` as for a poller."""
        ...


class Poller(Protocol):
    """Opens endpoints and waits on all of them.

    ``traffic`` counts the tensors that went through them, where there is a choice of ways.
    """

    traffic: Traffic

    def bind(self, address: str) -> Hub: ...

    def connect(self, address: str, identity: str, to: str = "coordinator") -> Link:
        """Connect to a hub, which will see this link as a sender whose route begins with ``identity``.

        Args:
            to: the role whose hub it is. With keys nobody else's is taken for it.
        """
        ...

    def wait(self, timeout_s: float) -> None:
        """Return when an endpoint may have a message, ``wake`` was called, or time is up."""
        ...

    def wake(self) -> None:
        """End the current (or the next) ``wait``. Safe from any thread and from signal handlers."""
        ...

    def close(self, at_once: bool = False) -> None:
        """Close every endpoint that was opened here.

        Args:
            at_once: drop what was sent and did not leave yet, for it is of no use, or there is nobody to
                read it; else it has a moment to leave.
        """
        ...


class Transport(Protocol):
    """Makes pollers; this is the seam through which tests run roles without sockets."""

    def poller(self) -> Poller: ...


@contextlib.contextmanager
def closed_on_error(poller: Poller) -> Iterator[Poller]:
    """Close a poller at once if what is made around it cannot be made: nobody else would."""
    try:
        yield poller
    except BaseException:
        poller.close(at_once=True)
        raise
