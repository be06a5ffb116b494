"""The transport that real jobs use: ZeroMQ between hosts, shared memory within one."""

from __future__ import annotations

from edldist.wire.messages import MAX_HEADER_BYTES
from edldist.wire.shm.allowance import switched_on
from edldist.wire.zmq.keys import SocketKeys
from edldist.wire.zmq.poller import ZmqPoller

__all__ = [
    "CONTROL_FRAME_BYTES",
    "CONTROL_UNREAD_BYTES",
    "MAX_FRAME_BYTES",
    "MAX_UNREAD_BYTES",
    "ZmqTransport",
]

MAX_FRAME_BYTES = 1 << 30
"""Largest single frame of the data path: the inputs or labels of one tensor of one task."""
CONTROL_FRAME_BYTES = MAX_HEADER_BYTES
"""Largest frame at a coordinator, which never sees a tensor."""
MAX_UNREAD_BYTES = 4 << 30
"""What the peers of one hub together may have sent that it has not read, unfinished messages included."""
CONTROL_UNREAD_BYTES = 64 << 20
"""The same at a coordinator."""


class ZmqTransport:
    """The real transport.

    Args:
        max_frame_bytes: a peer that sends a larger frame is disconnected by the socket.
        max_unread_bytes: when the peers of a hub together have sent more that is not read yet, the one that
            sent most of it is disconnected (``backlog``).
        max_header_bytes: a message with a larger header is garbage.
        shared_memory: whether large frames go through shared memory where both ends can map each
            other's. None: as ``EDLDIST_SHARED_MEMORY`` says, which is yes unless it is ``0``.
        tensors: whether any travel here. A coordinator has none.
        keys: with which ends prove who they are and encrypt what they say. None: nobody does, and a sender
            is who it says it is.

    Raises:
        ConfigError: that variable has another value.
    """

    def __init__(
        self,
        max_frame_bytes: int = MAX_FRAME_BYTES,
        shared_memory: bool | None = None,
        *,
        max_header_bytes: int = MAX_HEADER_BYTES,
        max_unread_bytes: int = MAX_UNREAD_BYTES,
        tensors: bool = True,
        keys: SocketKeys | None = None,
    ) -> None:
        self.max_frame_bytes = max_frame_bytes
        self.max_header_bytes = max_header_bytes
        self.max_unread_bytes = max_unread_bytes
        self.shared_memory = tensors and (switched_on() if shared_memory is None else shared_memory)
        self.tensors = tensors
        self.keys = keys

    def poller(self) -> ZmqPoller:
        return ZmqPoller(
            self.max_frame_bytes,
            self.max_header_bytes,
            self.max_unread_bytes,
            self.shared_memory,
            self.tensors,
            self.keys,
        )
