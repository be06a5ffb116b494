"""Ask a coordinator for the state of its job. Imports no torch."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Collection
from typing import TypeVar

from edldist.address_file import parse_coordinator
from edldist.errors import CoordinatorUnreachableError, RefusedError
from edldist.keys.open_link import KEYS_VARIABLE
from edldist.keys.pair import OPERATOR
from edldist.wire.messages import (
    MAX_STATUS_BYTES,
    Ack,
    Event,
    History,
    HistoryQuery,
    NodeQuery,
    NodeStatus,
    Refused,
    Scale,
    Scaled,
    Status,
    StatusQuery,
)
from edldist.wire.transport import Link, Transport, closed_on_error
from edldist.wire.zmq.keys import socket_keys
from edldist.wire.zmq.transport import ZmqTransport

__all__ = ["StatusClient", "no_answer", "query_status"]

_Question = StatusQuery | HistoryQuery | NodeQuery | Scale | Event
_Answer = TypeVar("_Answer", Status, History, NodeStatus, Scaled, Ack)


class StatusClient:
    """A link for repeated questions. Owned by one thread; survives coordinator restarts."""

    def __init__(self, address: str, transport: Transport | None = None, role: str = OPERATOR) -> None:
        parse_coordinator(address, "coordinator")
        self._address = address
        transport = transport or ZmqTransport(
            MAX_STATUS_BYTES, max_header_bytes=MAX_STATUS_BYTES, tensors=False, keys=socket_keys(role)
        )
        with closed_on_error(transport.poller()) as self._poller:
            self._link = self._connect()

    def query(self, since: int = 0, timeout_s: float = 2.0) -> Status:
        """The job's state, with the records numbered after ``since``.

        Raises:
            CoordinatorUnreachableError: no answer within ``timeout_s``.
            RefusedError: the coordinator refuses this client.
            ProtocolVersionError: the coordinator is of another version.
        """
        return self._ask(StatusQuery(since=since), Status, timeout_s)

    def history(self, since: float = 0.0, timeout_s: float = 2.0) -> History:
        """The course of the run; with ``since`` (``wall_s`` of an earlier answer), what came after that.

        Raises:
            CoordinatorUnreachableError, RefusedError, ProtocolVersionError: as for ``query``.
        """
        return self._ask(HistoryQuery(since=since), History, timeout_s)

    def node(self, processes: Collection[str], since: int = 0, timeout_s: float = 2.0) -> NodeStatus:
        """What became of a node's ranks, by the names of their processes.

        Raises:
            CoordinatorUnreachableError, RefusedError, ProtocolVersionError: as for ``query``.
        """
        return self._ask(NodeQuery(processes=sorted(processes), since=since), NodeStatus, timeout_s)

    def scale(self, group: str, workers: int | None, timeout_s: float = 2.0) -> Scaled:
        """Ask for a number of workers of a teacher group; None for what the coordinator decides.

        Raises:
            RefusedError: there is no such group, or the number is not within its bounds.
            CoordinatorUnreachableError, ProtocolVersionError: as for ``query``.
        """
        return self._ask(Scale(group=group, workers=workers), Scaled, timeout_s)

    def tell(self, event: Event, timeout_s: float = 2.0) -> None:
        """Report an event, with a ``reporter`` and a number: told again it is the same one.

        Raises:
            CoordinatorUnreachableError: it was not acknowledged within ``timeout_s``.
            RefusedError, ProtocolVersionError: as for ``query``.
        """
        self._ask(event, Ack, timeout_s)

    def _ask(self, question: _Question, kind: type[_Answer], timeout_s: float) -> _Answer:
        deadline = time.monotonic() + timeout_s
        self._link.send(question)
        while (left_s := deadline - time.monotonic()) > 0:
            self._poller.wait(left_s)
            while time.monotonic() < deadline and (received := self._link.receive()) is not None:
                if isinstance(received.message, kind):
                    return received.message
                if isinstance(received.message, Refused):
                    raise RefusedError(f"coordinator {self._address}: {received.message.reason}")
        # The question may still be answered, perhaps by a coordinator that starts later. A link of
        # a new name keeps that answer, for an older ``since``, apart from those to come.
        trouble = self._link.trouble
        self._link.close(at_once=True)
        self._link = self._connect()
        raise no_answer(self._address, timeout_s, trouble)

    def _connect(self) -> Link:
        return self._poller.connect(self._address, f"status-{uuid.uuid4().hex[:12]}")

    def close(self) -> None:
        self._poller.close(at_once=True)  # nobody waits for the answer to a question that has not left


def query_status(address: str, since: int = 0, timeout_s: float = 2.0) -> Status:
    """One question on a link of its own; see ``StatusClient.query``."""
    client = StatusClient(address)
    try:
        return client.query(since, timeout_s)
    finally:
        client.close()


def no_answer(address: str, timeout_s: float, trouble: str) -> CoordinatorUnreachableError:
    """What is raised where a coordinator has not answered.

    Args:
        trouble: that the link tells; empty where it knows of none.
    """
    why = f": {trouble}" if trouble else ". Is it running (edldist coordinator), and is this its address?"
    if not trouble and not os.environ.get(KEYS_VARIABLE):
        # One with keys answers nobody without: on one machine that looks as if nobody were there.
        why += " If its job has keys, give --keys DIR, too"
    return CoordinatorUnreachableError(f"no coordinator answered at {address} within {timeout_s:g} s{why}")
