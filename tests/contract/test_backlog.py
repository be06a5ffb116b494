"""What strangers send without end, or never finish, is bounded in bytes, and honest peers are left alone."""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from edldist.wire.messages import Ack, encode
from edldist.wire.zmq.endpoints import ZmqHub
from edldist.wire.zmq.poller import ZmqPoller
from edldist.wire.zmq.transport import ZmqTransport

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts as Linux does")

MOST = 8 << 20
FRAME = 1 << 20
HANDSHAKE = 1_000  # bytes at most
MORE = b"\x03" + struct.pack(">Q", FRAME) + bytes(FRAME)
LAST = b"\x02" + struct.pack(">Q", FRAME) + bytes(FRAME)


class Rig:
    def __init__(self, tensors: bool) -> None:
        transport = ZmqTransport(FRAME, max_unread_bytes=MOST, tensors=tensors, shared_memory=False)
        self.poller: ZmqPoller = transport.poller()
        self.hub: ZmqHub = self.poller.bind("tcp://127.0.0.1:0")
        self._open: list[socket.socket] = []

    def stranger(self) -> socket.socket:
        """A raw connection that libzmq takes for a DEALER (ZMTP 3.0, NULL security)."""
        port = int(self.hub.address.rpartition(":")[2])
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._open.append(connection)
        connection.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
        ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
        connection.sendall(b"\x04" + bytes([len(ready)]) + ready)
        heard = b""
        while b"Identity" not in heard:
            heard += connection.recv(1 << 16)
        return connection

    def until(self, step: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 90
        while not step():
            assert time.monotonic() < deadline
            self.poller.wait(0.02)

    def close(self) -> None:
        for connection in self._open:
            connection.close()
        self.poller.close()


@pytest.fixture(params=[True, False], ids=["tensors", "control"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    made = Rig(request.param)
    yield made
    made.close()


def pour(rig: Rig, connection: socket.socket, frames: bytes, at_most: int = 400) -> int:
    """Send until the other side hangs up; how many frames it took."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < at_most:
            connection.sendall(frames)
            sent += 1
            rig.hub.backlog._next_look = rig.poller._look_at = 0.0  # as if a quarter of a second had passed
            rig.poller.wait(0.01)
    return sent


def test_a_message_that_is_never_finished_ends_with_its_connection(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    link = rig.poller.connect(rig.hub.address, "good")
    connection = rig.stranger()
    with caplog.at_level(logging.WARNING):
        assert pour(rig, connection, MORE) < 400
    assert rig.hub.backlog.cut == 1
    assert "cut off a connection from 127.0.0.1" in caplog.text and "may hold 8 MiB" in caplog.text
    link.send(Ack(seq=1))
    heard = []
    rig.until(
        lambda: bool(heard.append(received.message) or True) if (received := rig.hub.receive()) else False
    )
    assert heard == [Ack(seq=1)]


def test_finished_messages_that_nobody_reads_are_bounded_in_bytes_too(rig: Rig) -> None:
    """By number they are bounded anyway: 4,096 of each peer, and at a coordinator fewer."""
    assert pour(rig, rig.stranger(), LAST) < 400
    assert rig.hub.backlog.cut == 1


def test_what_came_before_the_first_look_counts_too(rig: Rig) -> None:
    """Or many short connections would hold what they like."""
    for _ in range(2 * MOST // len(MORE) // 4 + 1):
        connection = rig.stranger()
        for _ in range(4):
            connection.sendall(MORE)
    rig.until(lambda: rig.hub.backlog.cut > 0)


def test_who_holds_most_goes_first_and_only_as_many_as_it_takes(rig: Rig) -> None:
    small, large = rig.stranger(), rig.stranger()
    for _ in range(3):
        small.sendall(MORE)
    assert pour(rig, large, MORE) < 400
    assert rig.hub.backlog.cut == 1
    (unread,) = rig.hub.backlog.held().values()
    assert 0 <= unread - 3 * len(MORE) < HANDSHAKE


def test_what_was_read_is_not_held_whatever_its_shape() -> None:
    """Bytes are counted exactly: an honest peer of long standing must never seem to hold anything."""
    rig = Rig(tensors=True)
    try:
        link = rig.poller.connect(rig.hub.address, "good")
        link.send(Ack(seq=0))
        rig.until(lambda: rig.hub.receive() is not None)
        (handshake,) = rig.hub.backlog.held().values()
        assert 0 < handshake < HANDSHAKE
        rng = random.Random(1)
        sizes = (0, 1, 254, 255, 256, 257, 5_000, 100_000)
        for seq in range(300):
            link.send(Ack(seq=seq), [bytes(rng.choice(sizes)) for _ in range(rng.randint(0, 4))])
            if seq % 10 == 0:
                link._socket.send_multipart([b"junk", bytes(300)])
        read = []
        rig.until(lambda: (read.append(1) or len(read) == 300) if rig.hub.receive() is not None else False)
        assert rig.hub.garbage == 30
        assert list(rig.hub.backlog.held().values()) == [handshake]
        assert rig.hub.backlog.cut == 0
    finally:
        rig.close()


def test_a_connection_that_takes_over_a_descriptor_owes_nothing_of_the_former(rig: Rig) -> None:
    for _ in range(30):
        connection = rig.stranger()
        word = encode(Ack(seq=1))
        connection.sendall(bytes([0, len(word)]) + word)
        rig.until(lambda: rig.hub.receive() is not None)
        connection.close()
    rig.poller.wait(0.3)
    rig.poller.wait(0.3)
    assert all(0 < unread < HANDSHAKE for unread in rig.hub.backlog.held().values())
    assert len(rig.hub.backlog._read) <= 1


def test_who_connects_again_and_again_costs_one_line_in_a_while(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            pour(rig, rig.stranger(), MORE)
        assert rig.hub.backlog.cut == 3
        assert caplog.text.count("cut off a connection") == 1
        rig.hub.backlog._say_at = 0.0  # half a minute later
        pour(rig, rig.stranger(), MORE)
    assert caplog.text.count("cut off a connection") == 2
    assert "(2 more since the last such line)" in caplog.text


def test_no_connection_of_a_coordinator_holds_more_than_the_bound_while_it_gets_no_time() -> None:
    """Nobody looks, nobody reads: libzmq itself stops taking in, and what the kernel holds comes on top."""
    rig = Rig(tensors=False)
    try:
        connection = rig.stranger()
        connection.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 200:
                connection.sendall(LAST)
                sent += 1
        assert sent < 100
    finally:
        rig.close()
