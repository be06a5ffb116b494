"""A coordinator in a thread, and members whose heartbeats and messages a test drives by hand."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from edldist.coordinator.options import CoordinatorOptions
from edldist.coordinator.server import Coordinator
from edldist.wire.messages import Heartbeat, Message, Register
from edldist.wire.process import route_of
from edldist.wire.zmq.transport import ZmqTransport
from tests.greetings import FINGERPRINT

INTERVAL_S, TTL_S = 0.05, 0.4
WITHIN_S = 90.0
T = TypeVar("T")


def until(attempt: Callable[[], T], what: str) -> T:
    """The first truthy answer, asked for again and again."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        if found := attempt():
            return found
        time.sleep(0.005)
    raise AssertionError(f"{what} did not happen within {WITHIN_S} s")


class FakeMember:
    """A link whose beats and messages the test drives by hand."""

    def __init__(self, coordinator: str, member_id: str, **fields: Any) -> None:
        self.id = member_id
        base = {"id": member_id, "process": f"p-{member_id}", "host": "here", "pid": 1, "wall_s": time.time()}
        self.registration = Register(**base | fields)
        self._poller = ZmqTransport().poller()
        self._link = self._poller.connect(coordinator, route_of(member_id, self.registration.process))
        self.inbox: list[Message] = []

    def send(self, message: Message) -> None:
        assert self._link.send(message)

    def register(self) -> None:
        self.send(self.registration)

    def beat(self, **stats: Any) -> None:
        self.send(Heartbeat(id=self.id, stats=stats))

    def read(self) -> list[Message]:
        while (received := self._link.receive()) is not None:
            self.inbox.append(received.message)
        return self.inbox

    def expect(self, kind: type[T], which: Callable[[T], bool] = lambda m: True, beat: bool = True) -> T:
        """Wait for a message of a kind (beating meanwhile), dropping those before it."""

        def look() -> T | None:
            self._poller.wait(INTERVAL_S / 2)
            if beat:
                self.beat()
            self.read()
            while self.inbox:
                message = self.inbox.pop(0)
                if isinstance(message, kind) and which(message):
                    return message
            return None

        return until(look, f"{kind.__name__} for {self.id}")

    def close(self) -> None:
        self._poller.close()


class Running:
    """A coordinator in a thread."""

    def __init__(self, bind: str = "tcp://127.0.0.1:0", **options: Any) -> None:
        base = {"http": "127.0.0.1:0", "heartbeat_interval_s": INTERVAL_S, "heartbeat_ttl_s": TTL_S}
        self.coordinator = Coordinator(CoordinatorOptions(bind=bind, **base | options), ZmqTransport())
        self.thread = threading.Thread(target=self.coordinator.run, daemon=True)
        self.thread.start()
        self.address = self.coordinator.wait_ready()

    def stop(self) -> None:
        self.coordinator.stop()
        self.thread.join(WITHIN_S)
        assert not self.thread.is_alive()


def teacher(
    stack: contextlib.ExitStack, coordinator: str, member_id: str = "t1", **fields: Any
) -> FakeMember:
    member = FakeMember(
        coordinator, member_id, role="teacher", **{"group": "big", "fingerprint": FINGERPRINT} | fields
    )
    stack.callback(member.close)
    return member


def student(
    stack: contextlib.ExitStack, coordinator: str, member_id: str = "s1", **fields: Any
) -> FakeMember:
    base = {"role": "student", "address": f"tcp://here:{member_id}", "teachers": ["big"]}
    member = FakeMember(coordinator, member_id, **base | fields)
    stack.callback(member.close)
    return member
