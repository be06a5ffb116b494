"""Who says all that to the ports of a job, and how much at a time."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections import Counter

import zmq

from edldist.errors import EdlDistError, WireError
from edldist.wire.messages import Register, TensorSpec, Unknown, decode, encode
from edldist.wire.shm.offers import decode_sharing
from edldist.wire.tensors import unpack
from tests.fuzz.streams import greeting, http, ready, zmtp
from tests.fuzz.words import Words

Place = tuple[str, int]
NOTHINGS = b"\x01\x00" * (256 << 10)
POUR_S = 2.0
PATIENCE_S = 15.0
"""A port that answers a sound request later than this hangs."""


def place_of(address: str) -> Place:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return host, int(port)


class Decoder:
    """Headers and tensors, in this process: valid, or refused with the error that is meant for it."""

    name = "decoder"

    def __init__(self, words: Words) -> None:
        self._words = words

    def send(self) -> int:
        for _ in range(500):
            self.one()
        return 500

    def one(self) -> None:
        raw = self._words.header()
        for read in (decode, decode_sharing):
            with contextlib.suppress(WireError):
                read(raw)
        rng = self._words.rng
        if rng.random() < 0.1:
            shape = [rng.choice((0, 1, 2, 3, 2**31, 2**62)) for _ in range(rng.randint(0, 4))]
            dtype = rng.choice(("float32", "int64", "bool", "bfloat16", "object", ""))
            spec = TensorSpec(name="x", dtype=dtype, shape=shape)
            with contextlib.suppress(WireError):
                unpack([spec], [memoryview(bytearray(rng.choice((0, 1, 4, 24, 96))))])


class Dealer:
    """A peer that connects as ours do, and says anything: at the pace that one without a task may have.

    Args:
        curve: whether it proves a key, which nobody knows.
    """

    def __init__(self, name: str, address: str, words: Words, curve: bool = False) -> None:
        self.name = name
        self._address = address
        self._words = words
        self._curve = curve
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._next = 0.0
        self._socket = self._dial()

    def _dial(self) -> zmq.Socket[bytes]:
        made = self._context.socket(zmq.DEALER)
        made.setsockopt(zmq.LINGER, 0)
        made.setsockopt(zmq.SNDHWM, 1_000)
        made.setsockopt(zmq.ROUTING_ID, b"fuzz-" + self._words.rng.randbytes(8))
        if self._curve:
            made.curve_publickey, made.curve_secretkey = zmq.curve_keypair()
            made.curve_serverkey, _ = zmq.curve_keypair()
        made.connect(self._address)
        return made

    def send(self) -> int:
        now = time.monotonic()
        if now < self._next:
            return 0
        self._next = now + 0.2
        rng = self._words.rng
        if rng.random() < 0.05:
            self._socket.close()
            self._socket = self._dial()
        sent = 0
        with contextlib.suppress(zmq.Again):
            for _ in range(80):
                tensors = [rng.randbytes(rng.randint(0, 60)) for _ in range(rng.choice((0, 0, 1, 3)))]
                self._socket.send_multipart([self._words.header(), *tensors], zmq.NOBLOCK)
                sent += 1
        with contextlib.suppress(zmq.Again):
            for _ in range(1_000):
                self._socket.recv_multipart(zmq.NOBLOCK)
        return sent

    def close(self) -> None:
        self._socket.close()
        self._context.term()


class Host:
    """A student that is none, to which the coordinator sends teachers: what it tells them is anything."""

    name = "teachers' links"

    def __init__(self, coordinator: str, words: Words) -> None:
        self._words = words
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._hub = self._context.socket(zmq.ROUTER)
        self._link = self._context.socket(zmq.DEALER)
        for each in (self._hub, self._link):
            each.setsockopt(zmq.LINGER, 0)
        port = self._hub.bind_to_random_port("tcp://127.0.0.1")
        self._link.connect(coordinator)
        self._register = encode(
            Register(
                id="fuzz-student",
                role="student",
                group="teacher",
                address=f"tcp://127.0.0.1:{port}",
                teachers=["teacher"],
                links=[],
                process="fuzz",
                host="h",
                pid=1,
                wall_s=time.time(),
                info={},
            )
        )
        self._peers: dict[bytes, float] = {}
        self._next = 0.0
        self.met = 0

    def send(self) -> int:
        now = time.monotonic()
        if now < self._next:
            return 0
        self._next = now + 0.2
        with contextlib.suppress(zmq.Again):
            self._link.send(self._register, zmq.NOBLOCK)
            while True:
                self._link.recv_multipart(zmq.NOBLOCK)
        with contextlib.suppress(zmq.Again):
            while True:
                peer = self._hub.recv_multipart(zmq.NOBLOCK)[0]
                self.met += peer not in self._peers
                self._peers[peer] = now
        sent = 0
        with contextlib.suppress(zmq.Again):
            for peer in [peer for peer, at in self._peers.items() if now - at < 2]:
                for _ in range(20):
                    self._hub.send_multipart([peer, self._words.header()], zmq.NOBLOCK)
                    sent += 1
        return sent

    def close(self) -> None:
        self._hub.close()
        self._link.close()
        self._context.term()


class Raw:
    """Bytes that are no ZMTP, one connection each."""

    def __init__(self, name: str, address: str, words: Words) -> None:
        self.name = name
        self._place = place_of(address)
        self._words = words
        self._next = 0.0

    def send(self) -> int:
        now = time.monotonic()
        if now < self._next:
            return 0
        self._next = now + 0.1
        for _ in range(8):
            written(self._place, zmtp(self._words), self._words.rng)
        return 8


class Flood:
    """Now and then as much as goes through; its connections stay until the next time."""

    def __init__(self, name: str, address: str, words: Words, every_s: float = 8.0) -> None:
        self.name = name
        self._place = place_of(address)
        self._words = words
        self._every_s = every_s
        self._next = time.monotonic() + every_s / 2
        self._turn = 0
        self._open: list[socket.socket] = []

    def send(self) -> int:
        now = time.monotonic()
        if now < self._next:
            return 0
        self._next = now + self._every_s
        self.close()
        kinds = (
            self._nothings,
            self._long_message,
            self._garbage,
            self._words_without_end,
            self._connections,
        )
        kind = kinds[self._turn % len(kinds)]
        self._turn += 1
        return max(1, kind())

    def close(self) -> None:
        while self._open:
            self._open.pop().close()

    def _nothings(self) -> int:
        """Frames of no bytes, of a message that never ends."""
        return self._pour(NOTHINGS, 32)

    def _long_message(self) -> int:
        """The same, of one that does."""
        return self._pour(NOTHINGS, 12) + self._pour(b"\x00\x00", 1, anew=False)

    def _garbage(self) -> int:
        word = self._words.header()[:250]
        return self._pour((bytes([0, len(word)]) + word) * 4_096, 40)

    def _words_without_end(self) -> int:
        word = encode(Unknown())
        return self._pour((bytes([0, len(word)]) + word) * 4_096, 40)

    def _connections(self) -> int:
        for number in range(300):
            self._pour(b"", 0, anew=number % 2 == 0)
        return 150

    def _pour(self, raw: bytes, times: int, anew: bool = True) -> int:
        """How often a connection that is a DEALER's took these bytes in, before it was hung up on."""
        taken = 0
        with contextlib.suppress(OSError):
            if anew:
                self._open.append(socket.create_connection(self._place, timeout=PATIENCE_S))
                self._open[-1].settimeout(POUR_S)
                self._open[-1].sendall(greeting() + ready())
            for _ in range(times):
                self._open[-1].sendall(raw)
                taken += 1
        return taken


class Pages:
    """Requests that are no HTTP, one connection each."""

    name = "HTTP"

    def __init__(self, address: str, words: Words) -> None:
        self._place = place_of(address)
        self._words = words
        self._next = 0.0
        self.answers: Counter[int] = Counter()

    def send(self) -> int:
        now = time.monotonic()
        if now < self._next:
            return 0
        self._next = now + 0.2
        for _ in range(8):
            written(self._place, http(self._words), self._words.rng)
        return 8


def written(place: Place, raw: bytes, rng: random.Random) -> None:
    """One connection that writes these bytes, and waits a little for what comes back or not at all."""
    with contextlib.suppress(OSError), socket.create_connection(place, timeout=PATIENCE_S) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.settimeout(0.05)
        connection.sendall(raw)
        if rng.random() < 0.2:
            connection.recv(1 << 12)


def healthy(address: str) -> None:
    """A sound request is answered, soon.

    Raises:
        AssertionError: it is not.
    """
    with contextlib.suppress(EdlDistError), socket.create_connection(place_of(address), PATIENCE_S) as asked:
        asked.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = b""
        while chunk := asked.recv(1 << 12):
            answer += chunk
    assert answer.endswith(b"ok"), f"/healthz says {answer!r}"
