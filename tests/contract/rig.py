"""Every transport, with pollers that are closed at the end of a test, and steps of tests at them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from edldist.wire.memory import MemoryTransport
from edldist.wire.messages import (
    Unknown,
)
from edldist.wire.simulated.endpoints import SimulatedPoller
from edldist.wire.simulated.network import Network
from edldist.wire.transport import Hub, Link, Poller, Received, Transport
from edldist.wire.zmq.transport import ZmqTransport
from tests.simulation.schedule import Schedule

WITHIN_S = 90.0


ANYWHERE = "tcp://127.0.0.1:0"


class Rig:
    """Pollers over one transport, closed at the end of the test."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self._pollers: list[Poller] = []

    def poller(self) -> Poller:
        self._pollers.append(self.transport.poller())
        return self._pollers[-1]

    def now(self) -> float:
        """Seconds on the clock by which the transport waits."""
        schedule = getattr(self.transport, "schedule", None)
        return time.monotonic() if schedule is None else schedule.now

    def close(self) -> None:
        for poller in self._pollers:
            poller.close()


class SteppedPoller(SimulatedPoller):
    """Waits by letting simulated time pass."""

    rang = False

    def wait(self, timeout_s: float) -> None:
        schedule = self.schedule
        until = schedule.now + timeout_s
        while not self.rang and schedule.next_at <= (schedule.now + 0.001 if self.pending else until):
            schedule.step()
        if not (self.rang or self.pending):
            schedule.now = max(schedule.now, until)
        self.rang = False
        super().wait(timeout_s)

    def wake(self) -> None:
        self.rang = True


class SteppedTransport:
    """A simulated network whose time passes while somebody waits."""

    def __init__(self) -> None:
        self.schedule = Schedule(random.Random(1))
        self._network = Network(self.schedule, "contract")
        self._network.delay_s, self._network.slow_share = (0.0001, 0.0001), 0.0
        self.files = self._network.files

    def poller(self) -> SteppedPoller:
        poller = SteppedPoller(self._network, "host", lambda: None)
        poller.schedule = self.schedule
        return poller


TRANSPORTS: dict[str, Callable[[], Transport]] = {
    "memory": MemoryTransport,
    "simulated": SteppedTransport,
    "zeromq": lambda: ZmqTransport(max_frame_bytes=1 << 24, shared_memory=False),
    "zeromq with shared memory": lambda: ZmqTransport(max_frame_bytes=1 << 24, shared_memory=True),
}


def take(poller: Poller, endpoint: Hub | Link, count: int = 1) -> list[Received]:
    """The next messages of an endpoint, waiting as its owner does."""
    taken: list[Received] = []
    deadline = time.monotonic() + WITHIN_S
    while len(taken) < count:
        while len(taken) < count and (received := endpoint.receive()) is not None:
            taken.append(received)
        if len(taken) < count:
            assert time.monotonic() < deadline, f"{len(taken)} of {count} messages within {WITHIN_S} s"
            poller.wait(0.05)
    return taken


def until(poller: Poller, step: Callable[[], bool], within_s: float = WITHIN_S) -> float:
    """Repeat a step until it is true; the seconds that took."""
    began = time.monotonic()
    while not step():
        assert time.monotonic() - began < within_s, f"not within {within_s} s"
        poller.wait(0.005)
    return time.monotonic() - began


def greet(poller: Poller, hub: Hub, link: Link, identity: str) -> None:
    """Make sure that hub and link know each other."""
    link.send(Unknown())
    assert take(poller, hub)[0].sender.route == identity.encode()
