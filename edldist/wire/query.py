"""Ask a coordinator for the state of its job. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection

from edldist.address_file import parse_coordinator
from edldist.keys.pair import OPERATOR
from edldist.wire.asking import Asking
from edldist.wire.messages import (
    MAX_STATUS_BYTES,
    Ack,
    Event,
    History,
    HistoryQuery,
    NodeQuery,
    NodeStatus,
    Scale,
    Scaled,
    Status,
    StatusQuery,
)
from edldist.wire.transport import Transport
from edldist.wire.zmq.keys import socket_keys
from edldist.wire.zmq.transport import ZmqTransport

__all__ = ["StatusClient", "query_status"]


class StatusClient:
    """A link for repeated questions. Owned by one thread; survives coordinator restarts."""

    def __init__(self, address: str, transport: Transport | None = None, role: str = OPERATOR) -> None:
        parse_coordinator(address, "coordinator")
        transport = transport or ZmqTransport(
            MAX_STATUS_BYTES, max_header_bytes=MAX_STATUS_BYTES, tensors=False, keys=socket_keys(role)
        )
        self._asking = Asking(address, "status", transport)

    def query(self, since: int = 0, timeout_s: float = 2.0) -> Status:
        """The job's state, with the records numbered after ``since``.

        Raises:
            CoordinatorUnreachableError: no answer within ``timeout_s``.
            RefusedError: the coordinator refuses this client.
            ProtocolVersionError: the coordinator is of another version.
        """
        return self._asking.ask(StatusQuery(since=since), Status, timeout_s)

    def history(self, since: float = 0.0, timeout_s: float = 2.0) -> History:
        """The course of the run; with ``since`` (``wall_s`` of an earlier answer), what came after that.

        Raises:
            CoordinatorUnreachableError, RefusedError, ProtocolVersionError: as for ``query``.
        """
        return self._asking.ask(HistoryQuery(since=since), History, timeout_s)

    def node(self, processes: Collection[str], since: int = 0, timeout_s: float = 2.0) -> NodeStatus:
        """What became of a node's ranks, by the names of their processes.

        Raises:
            CoordinatorUnreachableError, RefusedError, ProtocolVersionError: as for ``query``.
        """
        return self._asking.ask(NodeQuery(processes=sorted(processes), since=since), NodeStatus, timeout_s)

    def scale(self, group: str, workers: int | None, timeout_s: float = 2.0) -> Scaled:
        """Ask for a number of workers of a teacher group; None for what the coordinator decides.

        Raises:
            RefusedError: there is no such group, or the number is not within its bounds.
            CoordinatorUnreachableError, ProtocolVersionError: as for ``query``.
        """
        return self._asking.ask(Scale(group=group, workers=workers), Scaled, timeout_s)

    def tell(self, event: Event, timeout_s: float = 2.0) -> None:
        """Report an event, with a ``reporter`` and a number: told again it is the same one.

        Raises:
            CoordinatorUnreachableError: it was not acknowledged within ``timeout_s``.
            RefusedError, ProtocolVersionError: as for ``query``.
        """
        self._asking.ask(event, Ack, timeout_s)

    def close(self) -> None:
        self._asking.close()


def query_status(address: str, since: int = 0, timeout_s: float = 2.0) -> Status:
    """One question on a link of its own; see ``StatusClient.query``."""
    client = StatusClient(address)
    try:
        return client.query(since, timeout_s)
    finally:
        client.close()
