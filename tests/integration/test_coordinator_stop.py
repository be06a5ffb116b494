"""A coordinator stops when a signal says so, whatever the signal interrupts."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from edldist.coordinator.closing import LEAVE_S
from edldist.coordinator.options import CoordinatorOptions
from edldist.coordinator.server import Coordinator
from edldist.wire.memory import MemoryTransport
from edldist.wire.query import StatusClient
from edldist.wire.transport import Transport
from edldist.wire.zmq.transport import ZmqTransport

pytestmark = pytest.mark.timeout(240)


def test_a_signal_handler_that_stops_it_never_waits_for_a_lock_of_its_own_thread() -> None:
    """``Event.wait`` holds a lock for some bytecodes, and ``set`` in a handler would wait for it for ever."""
    coordinator = Coordinator(CoordinatorOptions(bind="tcp://127.0.0.1:0", http=None), ZmqTransport())

    def within(frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        if frame.f_code.co_name == "wait" and "signaled" in frame.f_locals:
            signal.raise_signal(signal.SIGTERM)
        return within

    def enter(frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        return within if frame.f_code.co_filename == threading.__file__ else None

    def ring() -> None:
        """Cause turns that come too early, which is when it pauses."""
        coordinator.wait_ready()
        for _ in range(100):
            if (poller := coordinator._poller) is not None:
                poller.wake()
            time.sleep(0.001)
        coordinator.stop()

    ringing = threading.Thread(target=ring, daemon=True)
    former = signal.signal(signal.SIGTERM, lambda *_: coordinator.stop())
    tracer = sys.gettrace()
    ringing.start()
    sys.settrace(enter)
    try:
        coordinator.run()
    finally:
        sys.settrace(tracer)
        signal.signal(signal.SIGTERM, former)
    ringing.join()


@pytest.mark.parametrize("transport", [MemoryTransport(), ZmqTransport()], ids=["memory", "zmq"])
def test_one_that_is_told_to_leave_serves_until_everyone_has_hung_up(transport: Transport) -> None:
    coordinator = Coordinator(CoordinatorOptions(bind="tcp://127.0.0.1:0", http=None), transport)
    serving = threading.Thread(target=coordinator.run, daemon=True)
    serving.start()
    client = StatusClient(coordinator.wait_ready(), transport)
    client.query()
    coordinator.leave(signal.SIGTERM)
    for _ in range(3):  # to a member, nothing is different
        assert client.query().incarnation == coordinator.incarnation
    hung_up_at = time.monotonic()
    client.close()
    serving.join(15)
    assert not serving.is_alive()
    assert time.monotonic() - hung_up_at < LEAVE_S - 1


def test_one_that_nobody_is_connected_to_leaves_at_once() -> None:
    coordinator = Coordinator(CoordinatorOptions(bind="tcp://127.0.0.1:0", http=None), ZmqTransport())
    serving = threading.Thread(target=coordinator.run, daemon=True)
    serving.start()
    coordinator.wait_ready()
    began = time.monotonic()
    coordinator.leave(signal.SIGTERM)
    serving.join(15)
    assert time.monotonic() - began < LEAVE_S - 1
