"""Two teachers with a key each: neither takes the place of the other at a coordinator that runs."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from pathlib import Path

import pytest
import zmq

from edldist.coordinator.options import CoordinatorOptions
from edldist.coordinator.server import Coordinator
from edldist.keys.folder import KeyFolder
from edldist.keys.live import LiveKeys
from edldist.keys.pair import COORDINATOR, STUDENT, TEACHER
from edldist.wire.messages import Heartbeat, Links, Message, Refused, Register, Registered, Unknown
from edldist.wire.transport import Link, Poller
from edldist.wire.zmq.keys import SocketKeys
from edldist.wire.zmq.transport import ZmqTransport
from tests.greetings import FINGERPRINT
from tests.integration.members import WITHIN_S, until

pytestmark = [
    pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE"),
    pytest.mark.timeout(240),
]


def keys(folder: Path, role: str, *admits: str) -> SocketKeys:
    return SocketKeys(LiveKeys(folder, role), admits)


def said(poller: Poller, link: Link, message: Message) -> Message:
    """What the coordinator answers; that it tells who serves whom, too, is another matter."""
    assert link.send(message)

    def answer() -> Message | None:
        poller.wait(0.05)
        received = link.receive()
        return None if received is None or isinstance(received.message, Links) else received.message

    return until(answer, f"an answer to {type(message).__name__}")


def test_a_named_key_takes_no_place_of_another(tmp_path: Path) -> None:
    folder, alice = tmp_path / "keys", tmp_path / "alice"
    KeyFolder(folder).make()
    KeyFolder(folder).add(TEACHER, "alice")
    alice.mkdir(mode=0o700)
    for name in ("known.json", "teacher-alice.key"):
        shutil.copy(folder / name, alice / name)
    options = CoordinatorOptions(bind="tcp://127.0.0.1:0", http="127.0.0.1:0", heartbeat_ttl_s=WITHIN_S)
    coordinator = Coordinator(options, ZmqTransport(keys=keys(folder, COORDINATOR, TEACHER, STUDENT)))
    thread = threading.Thread(target=coordinator.run, daemon=True)
    thread.start()
    register = Register(
        **{"id": "t1", "process": "p-t1", "host": "here", "pid": 1, "wall_s": time.time()},
        **{"role": "teacher", "group": "big", "fingerprint": FINGERPRINT},
    )
    with contextlib.ExitStack() as stack:
        stack.callback(thread.join, WITHIN_S)
        stack.callback(coordinator.stop)
        address = coordinator.wait_ready()
        ends: list[tuple[Poller, Link]] = []
        for place in (folder, alice):
            poller = ZmqTransport(keys=keys(place, TEACHER)).poller()
            stack.callback(poller.close)
            ends.append((poller, poller.connect(address, "t1~p-t1", COORDINATOR)))
        own, other = ends
        assert isinstance(said(*own, register), Registered)
        refused = said(*other, register)
        assert isinstance(refused, Refused) and "id t1 is held by" in refused.reason
        assert isinstance(said(*other, Heartbeat(id="t1")), Unknown), "and it is nobody"
        assert isinstance(said(*own, register), Registered), "while the first one is still itself"
