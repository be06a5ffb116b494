"""This process as a coordinator: its signals, and how many connections it may have."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from dataclasses import replace
from types import FrameType

from edldist.clock import SystemClock
from edldist.coordinator.options import CoordinatorOptions
from edldist.coordinator.server import Coordinator
from edldist.keys.pair import COORDINATOR, OPERATOR, STUDENT, TEACHER
from edldist.signals import EXIT_STOPPED, unclaimed
from edldist.wire.messages import Status
from edldist.wire.zmq.keys import socket_keys
from edldist.wire.zmq.transport import CONTROL_FRAME_BYTES, CONTROL_UNREAD_BYTES, ZmqTransport

__all__ = ["run_coordinator"]


def run_coordinator(options: CoordinatorOptions, listener: Callable[[Status], None] | None = None) -> int:
    """Run a coordinator in this process until a signal asks it to stop, and then until everyone has left.

    Args:
        options: how to run it.
        listener: see ``Coordinator``.

    Returns:
        ``EXIT_STOPPED``: it has no end of its own.

    Raises:
        ConfigError: an address cannot be bound.
    """
    keys = socket_keys(COORDINATOR, TEACHER, STUDENT, OPERATOR)
    transport = ZmqTransport(
        CONTROL_FRAME_BYTES, max_unread_bytes=CONTROL_UNREAD_BYTES, tensors=False, keys=keys
    )
    options = replace(options, sealed=keys is not None)
    coordinator = Coordinator(options, transport, SystemClock(), listener=listener)
    _allow_many_connections()

    def on_signal(number: int, frame: FrameType | None) -> None:
        coordinator.leave(number)

    heeded = (signal.SIGTERM, signal.SIGINT, *unclaimed())
    former = {number: signal.signal(number, on_signal) for number in heeded}
    try:
        coordinator.run()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    return EXIT_STOPPED


def _allow_many_connections() -> None:
    """Every member is an open file; many systems allow 1,024 unless asked for more."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
