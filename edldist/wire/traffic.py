"""How many bytes of tensors went each way, and by which transport."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edldist.wire.transport import Outgoing

__all__ = ["Traffic"]


@dataclass(slots=True)
class Traffic:
    """Counts of one poller, for its thread; any other may read them.

    What travels beside tensors (headers, heartbeats) is not counted: it is small, and always goes by socket.

    Attributes:
        sent_socket, received_socket: bytes that went through a socket, between hosts or on one.
        sent_shared, received_shared: bytes that a process on the same host mapped instead.
    """

    sent_socket: int = 0
    received_socket: int = 0
    sent_shared: int = 0
    received_shared: int = 0

    def sent(self, frames: Outgoing, shared_bytes: int) -> None:
        """A message with tensors was queued, of which so many bytes are left to be mapped."""
        total_bytes = 0
        for frame in frames:
            total_bytes += memoryview(frame if not isinstance(frame, tuple) else frame.memory).nbytes
        self.sent_socket += total_bytes - shared_bytes
        self.sent_shared += shared_bytes

    def received(self, by_socket: Sequence[memoryview], frames: Sequence[memoryview]) -> None:
        """A message with tensors came.

        Args:
            by_socket: those of its frames that the socket brought.
            frames: all.
        """
        socket_bytes = sum([frame.nbytes for frame in by_socket])
        self.received_socket += socket_bytes
        if by_socket is not frames:
            self.received_shared += sum([frame.nbytes for frame in frames]) - socket_bytes

    def as_stats(self) -> dict[str, int]:
        """As a member reports them."""
        return {
            "sent_socket_bytes": self.sent_socket,
            "received_socket_bytes": self.received_socket,
            "sent_shared_bytes": self.sent_shared,
            "received_shared_bytes": self.received_shared,
        }
