"""What a signal handler calls may interrupt itself: it takes no lock that is not reentrant."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from edldist.clock import FakeClock
from edldist.coordinator.options import CoordinatorOptions
from edldist.coordinator.server import Coordinator
from edldist.wire.memory import MemoryTransport
from edldist.wire.zmq.transport import ZmqTransport
from edldist_launch.process.interrupts import Interrupts

pytestmark = pytest.mark.timeout(240)


def may_interrupt_itself(function: Callable[[], object]) -> bool:
    """Whether a function ends that is called again wherever it makes a call, as a signal handler could be.

    It runs in a thread of its own, which is left behind if it waits for a lock that it holds itself.
    """
    nested = False

    def as_a_signal_would(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal nested
        if not nested and event in ("call", "return", "c_call", "c_return"):
            nested = True
            function()
            nested = False

    def run() -> None:
        sys.setprofile(as_a_signal_would)
        try:
            function()
        finally:
            sys.setprofile(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(2.0)
    return not thread.is_alive()


def test_the_check_finds_an_event() -> None:
    assert not may_interrupt_itself(threading.Event().set)


@pytest.mark.parametrize("transport", [MemoryTransport, ZmqTransport])
def test_a_poller_may_be_woken_while_it_is_being_woken(transport) -> None:
    poller = transport().poller()
    try:
        assert may_interrupt_itself(poller.wake)
        poller.wait(20)
    finally:
        poller.close()


def test_a_poller_of_queues_waits_again_after_it_was_woken() -> None:
    poller = MemoryTransport().poller()
    poller.wake()
    poller.wake()
    poller.wait(20)
    woken = threading.Thread(target=poller.wait, args=(20,), daemon=True)
    woken.start()
    woken.join(0.2)
    assert woken.is_alive(), "both rings were one"
    poller.wake()
    woken.join(20)
    assert not woken.is_alive()
    poller.close()


def test_a_coordinator_may_be_stopped_while_it_is_being_stopped() -> None:
    coordinator = Coordinator(
        CoordinatorOptions(bind="tcp://here:1", http=None), MemoryTransport(), FakeClock(), incarnation="one"
    )
    coordinator.open()
    try:
        assert may_interrupt_itself(coordinator.stop)
    finally:
        coordinator.close()


def test_a_launcher_may_be_interrupted_while_it_notes_an_interrupt() -> None:
    interrupts = Interrupts()
    assert may_interrupt_itself(lambda: interrupts._note(signal.SIGTERM, None))
