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

from edldist.wire.messages import MAX_FRAMES, MAX_HEADER_BYTES, Ack, Message, encode
from edldist.wire.transport import Received
from edldist.wire.zmq import backlog, endpoints
from edldist.wire.zmq.backlog import SILENT_BYTES, TASKLESS_BYTES, WORDS
from edldist.wire.zmq.endpoints import ZmqHub
from edldist.wire.zmq.poller import ZmqPoller
from edldist.wire.zmq.transport import ZmqTransport

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts as Linux does")

MOST = 16 << 20
FRAME = 1 << 20
HANDSHAKE = 1_000  # bytes at most
MORE = b"\x03" + struct.pack(">Q", FRAME) + bytes(FRAME)
LAST = b"\x02" + struct.pack(">Q", FRAME) + bytes(FRAME)
WORD = encode(Ack(seq=0))
WORD = bytes([0, len(WORD)]) + WORD
NOTHINGS = b"\x01\x00" * (32 << 10)
"""Frames of no bytes, each of which takes 64 in memory."""


class Rig:
    def __init__(self, tensors: bool) -> None:
        transport = ZmqTransport(FRAME, max_unread_bytes=MOST, tensors=tensors, shared_memory=False)
        self.poller: ZmqPoller = transport.poller()
        self.hub: ZmqHub = self.poller.bind("tcp://127.0.0.1:0")
        self._open: list[socket.socket] = []

    def dial(self) -> socket.socket:
        port = int(self.hub.address.rpartition(":")[2])
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._open.append(connection)
        return connection

    def stranger(self) -> socket.socket:
        """A raw connection that libzmq takes for a DEALER (ZMTP 3.0, NULL security)."""
        connection = self.dial()
        connection.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
        ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
        connection.sendall(b"\x04" + bytes([len(ready)]) + ready)
        heard = b""
        while b"Identity" not in heard:
            heard += connection.recv(1 << 16)
        return connection

    def speaker(self, tasked: bool = True) -> socket.socket:
        """A stranger that has said something, and was given a task."""
        connection = self.stranger()
        connection.sendall(WORD)
        received: list[Received | None] = [None]

        def heard() -> bool:
            received[0] = self.hub.receive()
            return received[0] is not None

        self.until(heard)
        assert received[0] is not None
        if tasked:
            self.hub.backlog.tasked(received[0].sender.route)
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
    """Send until the other side hangs up; how often it took them.

    A queue that is full by number, too, stops libzmq's reading: it says goodbye, and resets nothing yet.
    """
    connection.setblocking(False)
    sent, deadline = 0, time.monotonic() + 90
    with contextlib.suppress(ConnectionError):
        while sent < at_most:
            rest = memoryview(frames)
            while rest:
                assert time.monotonic() < deadline
                with contextlib.suppress(BlockingIOError):
                    rest = rest[connection.send(rest) :]
                look(rig)
                with contextlib.suppress(BlockingIOError):
                    if not connection.recv(1 << 16):
                        return sent
            sent += 1
    return sent


def look(rig: Rig) -> None:
    """As if a twentieth of a second had passed."""
    rig.hub.backlog._next_look = rig.poller._look_at = 0.0
    rig.poller.wait(0.01)


def hear(rig: Rig) -> Message:
    heard: list[Message] = []

    def came() -> bool:
        if (received := rig.hub.receive()) is not None:
            heard.append(received.message)
        return bool(heard)

    rig.until(came)
    return heard[0]


def held(rig: Rig, least: int) -> None:
    """Wait until that many bytes wait in this process."""
    rig.until(lambda: sum(rig.hub.backlog.held().values()) >= least)


def test_a_message_that_is_never_finished_ends_with_its_connection(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    link = rig.poller.connect(rig.hub.address, "good")
    connection = rig.speaker()
    with caplog.at_level(logging.WARNING):
        assert pour(rig, connection, MORE) < 400
    assert rig.hub.backlog.cut == 1
    assert "cut off a connection from 127.0.0.1" in caplog.text and "may hold 16 MiB" in caplog.text
    link.send(Ack(seq=1))
    assert hear(rig) == Ack(seq=1)


@pytest.mark.parametrize("spoken", [False, True])
def test_who_was_given_no_task_may_hold_no_more_than_a_header(
    rig: Rig, spoken: bool, caplog: pytest.LogCaptureFixture
) -> None:
    most = MAX_HEADER_BYTES + SILENT_BYTES if spoken else SILENT_BYTES
    connection = rig.speaker(tasked=False) if spoken else rig.stranger()
    sent = 0
    while sent + len(NOTHINGS) < most:  # a little less is taken from it
        connection.sendall(NOTHINGS)
        sent += len(NOTHINGS)
    held(rig, sent)
    for _ in range(3):
        look(rig)
    assert rig.hub.backlog.cut == 0
    with caplog.at_level(logging.WARNING):
        assert pour(rig, connection, NOTHINGS) <= 100
    assert rig.hub.backlog.cut == 1
    assert f"one that has no task may hold {most >> 10} KiB" in caplog.text


def test_many_who_hold_little_are_bounded_together(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Frames of no bytes take 32 times as much in memory."""
    tasked = rig.speaker()
    for _ in range(3):
        tasked.sendall(MORE)  # counts for itself
    each = SILENT_BYTES - (8 << 10)
    with caplog.at_level(logging.WARNING):
        for _ in range(TASKLESS_BYTES // each + 1):
            rig.stranger().sendall(MORE[:each])
        rig.until(lambda: look(rig) or rig.hub.backlog.cut > 0)
    assert "those that have no task may hold 8 MiB together" in caplog.text
    assert rig.hub.backlog.cut == 1


def test_a_process_that_got_no_time_to_read_hangs_up_on_nobody(rig: Rig) -> None:
    rig.speaker(tasked=False)
    connection = rig.speaker(tasked=False)
    word = encode(Ack(seq=7))
    for _ in range(3):
        connection.sendall(b"\x01\x00" + LAST)  # finished: it may be read
    connection.sendall(bytes([0, len(word)]) + word)
    held(rig, 3 * len(LAST))
    for _ in range(3):
        look(rig)
    assert hear(rig) == Ack(seq=7)
    assert (rig.hub.garbage, rig.hub.backlog.cut) == (3, 0)


def test_a_message_of_a_million_frames_is_read_bit_by_bit_and_ends_its_connection(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one, it would keep a process for seconds from its other work."""
    monkeypatch.setattr(endpoints, "_DISCARDED_AT_ONCE", 1_000)
    link = rig.poller.connect(rig.hub.address, "good")
    connection = rig.stranger()
    connection.sendall(b"\x01\x00" * (MAX_FRAMES + 10_000) + b"\x00\x00")
    rig.until(lambda: rig.hub.receive() is not None or rig.hub.garbage == 1)
    assert (rig.hub.garbage, rig.hub.backlog.cut, rig.hub.backlog.open) == (1, 1, 1)
    link.send(Ack(seq=1))
    turns = 0
    while (received := rig.hub.receive()) is None:
        turns += 1
        rig.poller.wait(0.01)
    assert received.message == Ack(seq=1) and turns >= 5
    assert closed(connection)


def closed(connection: socket.socket) -> bool:
    """Read until the other side hangs up."""
    with contextlib.suppress(ConnectionError):
        while connection.recv(1 << 16):
            pass
    return True


@pytest.mark.parametrize(
    ("word", "said"), [(WORD, WORDS + 2_000), (b"\x00\x01x", WORDS // 4 + 1_000)], ids=["words", "garbage"]
)
def test_who_was_given_no_task_may_say_so_much_and_no_more(
    rig: Rig,
    word: bytes,
    said: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is read and dropped costs the time that others need."""
    monkeypatch.setattr(backlog, "WORDS_S", 0.0)  # no more, however long this takes
    with caplog.at_level(logging.WARNING):
        for tasked in (True, False):
            rig.speaker(tasked).sendall(word * said)
            before, read = rig.hub.garbage, 0
            while read + rig.hub.garbage - before < said and rig.hub.backlog.cut == 0:
                if rig.hub.receive() is not None:
                    read += 1
                else:
                    rig.poller.wait(0.01)
            look(rig)
            assert rig.hub.backlog.cut == (0 if tasked else 1)
    assert "messages a second, and has no task" in caplog.text


def test_finished_messages_that_nobody_reads_are_bounded_in_bytes_too(rig: Rig) -> None:
    """By number they are bounded anyway: 4,096 of each peer, and at a coordinator fewer."""
    assert pour(rig, rig.speaker(), LAST) < 400
    assert rig.hub.backlog.cut == 1


def test_what_came_before_the_first_look_counts_too(rig: Rig) -> None:
    """Or many short connections would hold what they like."""
    for _ in range(2 * MOST // len(MORE) // 4 + 1):
        connection = rig.stranger()
        for _ in range(4):
            connection.sendall(MORE)
    rig.until(lambda: rig.hub.backlog.cut > 0)


def test_who_holds_most_goes_first_and_only_as_many_as_it_takes(rig: Rig) -> None:
    small, large = rig.speaker(), rig.speaker()
    for _ in range(3):
        small.sendall(MORE)
    assert pour(rig, large, MORE) < 400
    assert rig.hub.backlog.cut == 1
    held(rig, 3 * len(MORE))
    (unread,) = rig.hub.backlog.held().values()
    assert 0 <= unread - 3 * len(MORE) < HANDSHAKE


def test_of_one_address_so_many_connections_and_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backlog, "most_connections", lambda: 8)
    rig = Rig(tensors=False)
    try:
        first = [rig.speaker() for _ in range(4)]
        with caplog.at_level(logging.WARNING):
            for number in range(1, 21):
                connection = rig.dial()
                rig.until(lambda number=number: rig.hub.backlog.refused == number)
                assert closed(connection)
        assert rig.hub.backlog.open == 4 and rig.hub.backlog.cut == 0
        assert "one address may hold 4" in caplog.text
        first[0].close()
        rig.until(lambda: rig.hub.backlog.open == 3)
        rig.speaker()
        for connection in first[1:]:
            connection.sendall(WORD)
            hear(rig)
    finally:
        rig.close()


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
    assert len(rig.hub.backlog._open) <= 1


def test_who_connects_again_and_again_costs_one_line_in_a_while(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            pour(rig, rig.speaker(), MORE)
        assert rig.hub.backlog.cut == 3
        assert caplog.text.count("cut off a connection") == 1
        rig.hub.backlog._say_at = 0.0  # half a minute later
        pour(rig, rig.speaker(), MORE)
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
