"""Ask a coordinator for a trace of its job, and take in what members send. Imports no torch."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from edldist.address_file import parse_coordinator
from edldist.keys.pair import OPERATOR
from edldist.wire.asking import Asking
from edldist.wire.messages import (
    MAX_STATUS_BYTES,
    TraceBegun,
    TracedMember,
    TraceQuery,
    TraceRecords,
)
from edldist.wire.transport import Transport
from edldist.wire.zmq.keys import socket_keys
from edldist.wire.zmq.transport import ZmqTransport

__all__ = ["Collected", "TraceClient"]

PATIENCE_S = 10.0
"""For members whose time is up; as long as the coordinator waits for them."""
_TURN_S = 0.25


@dataclass
class Collected:
    """What came of a trace.

    Attributes:
        clock: name of the coordinator's clock.
        members: that were told to record.
        parts: what they sent, in the order in which it came.
        silent: members of which not all came.
        took_s: from the order to the last of them.
    """

    clock: str
    members: list[TracedMember]
    parts: list[TraceRecords] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    took_s: float = 0.0


class TraceClient:
    """A link for traces. Owned by one thread."""

    def __init__(self, address: str, transport: Transport | None = None) -> None:
        parse_coordinator(address, "coordinator")
        transport = transport or ZmqTransport(
            MAX_STATUS_BYTES, max_header_bytes=MAX_STATUS_BYTES, tensors=False, keys=socket_keys(OPERATOR)
        )
        self._asking = Asking(address, "trace", transport)

    def begin(self, seconds: float, sample: int = 1, timeout_s: float = 5.0) -> Collected:
        """Have the members of the job record, from now on.

        Raises:
            CoordinatorUnreachableError: no answer within ``timeout_s``.
            RefusedError: another trace is under way, nobody is there, or the coordinator refuses this client.
            ProtocolVersionError: the coordinator is of another revision.
        """
        begun = self._asking.ask(TraceQuery(seconds=seconds, sample=sample), TraceBegun, timeout_s)
        return Collected(begun.clock, begun.members)

    def collect(self, collected: Collected, seconds: float, patience_s: float = PATIENCE_S) -> None:
        """Take in what members send, until all of it is here, or nobody sends anything any more.

        Args:
            collected: what ``begin`` returned; gets what comes.
            seconds: for how long members record.
            patience_s: how long to wait for the next message of those whose time is up.
        """
        begun = time.monotonic()
        missing = {member.id for member in collected.members}
        heard = begun + seconds
        while missing and time.monotonic() - heard < patience_s:
            for received in self._asking.receive(_TURN_S):
                if not isinstance(part := received.message, TraceRecords) or part.member not in missing:
                    continue
                heard = max(heard, time.monotonic())
                collected.parts.append(part)
                if part.last:
                    missing.discard(part.member)
        collected.silent = sorted(missing)
        collected.took_s = time.monotonic() - begun

    def close(self) -> None:
        self._asking.close()
