"""Strangers talk to the ports of a running job: what they say is counted and harms no one else.

The rounds run in the test's process, against the coordinator and the student alike, while two
workers label.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import socket
import struct
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest
import zmq

from edldist.wire.messages import (
    PROTOCOL,
    PROTOCOL_VERSION,
    Failure,
    Heartbeat,
    Hello,
    Idle,
    Labels,
    LeaseRows,
    Message,
    Pong,
    Pull,
    Result,
    Return,
    Tasks,
    TensorSpec,
    Unknown,
    Welcome,
    decode,
    encode,
)
from edldist.wire.zmq.transport import CONTROL_FRAME_BYTES
from tests.fault.crew import Crew, crew
from tests.fault.harness import wait_for
from tests.greetings import fingerprint

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(240)]

OURS = fingerprint(model="tests.fault.teachers:faulty")
"""What the workers of the party are: a stranger may say so too."""


@pytest.fixture(scope="module")
def party(tmp_path_factory):
    env = {"EDLDIST_AGREEMENT": "off"}  # else strangers are put aside before they have a task
    student = {"samples": 1000, "batch_size": 20, "step_s": 0.01, "env": env}
    with crew(tmp_path_factory.mktemp("garbage"), 2, student) as made:
        yield made
        made.finish()


@pytest.fixture
def unharmed(party: Crew) -> Iterator[Crew]:
    """Training goes on, with the same workers, and exactly."""
    here, start = party.workers(), time.time()
    yield party
    party.await_steps(30)
    assert party.workers() == here and all(worker.alive for worker in here)
    assert party.gap_s(start) < 1
    assert not party.job.events("teacher_lost")
    party.assert_exact_so_far()


def ports(party: Crew) -> dict[str, str]:
    """Where the student and the coordinator listen."""
    (student,) = [m.address for m in party.job.status().members if m.role == "student"]
    return {"student": student, "coordinator": party.job.address}


def garbage(party: Crew) -> dict[str, int]:
    ready = json.loads((party.job.folder / "coordinator.json").read_text())
    with urllib.request.urlopen(f"http://{ready['http']}/status", timeout=5) as page:
        coordinator = json.load(page)["garbage"]
    return {"student": int(party.stats()["garbage"]), "coordinator": coordinator}


class Stranger:
    """A DEALER that says anything."""

    def __init__(self, address: str, name: bytes) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.ROUTING_ID, name)
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.connect(address)

    def say(self, message: Message, *frames: bytes) -> None:
        self.send(encode(message), *frames)

    def send(self, *frames: bytes) -> None:
        self._socket.send_multipart(frames)

    def hear_raw(self) -> list[bytes]:
        """The frames of the next message, whatever they are."""
        assert self._socket.poll(90_000)
        return self._socket.recv_multipart()

    def hear(self, kind: type[Message]) -> Message:
        """The next message of a kind; what comes before it does not count."""
        deadline = time.monotonic() + 90
        while self._socket.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            message = decode(self._socket.recv_multipart()[0])
            if isinstance(message, kind):
                return message
        raise AssertionError(f"no {kind.__name__} came")

    def close(self) -> None:
        self._socket.close()
        self._context.term()


@contextlib.contextmanager
def stranger(address: str, name: bytes = b"mallory") -> Iterator[Stranger]:
    made = Stranger(address, name)
    try:
        yield made
    finally:
        made.close()


def tcp(address: str) -> socket.socket:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def closed(connection: socket.socket) -> bool:
    """Read until the other side hangs up."""
    with contextlib.suppress(ConnectionError):
        while connection.recv(1 << 16):
            pass
    return True


def heard(connection: socket.socket, word: bytes) -> bool:
    """Read until these bytes come."""
    read = b""
    while word not in read and (more := connection.recv(1 << 16)):
        read += more
    return word in read


def handshaken(address: str) -> socket.socket:
    """A raw connection that libzmq takes for a DEALER (ZMTP 3.0, NULL security)."""
    connection = tcp(address)
    connection.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
    kind = b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
    ready = b"\x05READY" + kind
    connection.sendall(b"\x04" + bytes([len(ready)]) + ready)
    assert heard(connection, b"Identity"), "no handshake"  # a word before it would end the connection
    return connection


def test_raw_bytes_are_no_connection(unharmed: Crew):
    rng = random.Random(1)
    for address in ports(unharmed).values():
        for junk in (b"GET / HTTP/1.1\r\n\r\n" * 8, rng.randbytes(1 << 16), b"\xff" + bytes(200)):
            connection = tcp(address)
            with contextlib.suppress(ConnectionError):  # hung up on in mid-sentence
                connection.sendall(junk)
            connection.close()
        tcp(address).close()


def test_random_frames_are_counted(unharmed: Crew):
    rng = random.Random(2)
    heads: list[Callable[[], bytes]] = [
        lambda: b"",
        lambda: rng.randbytes(rng.randint(1, 300)),
        lambda: b"ED",
        lambda: PROTOCOL.preface + rng.randbytes(rng.randint(0, 60)),
        lambda: encode(Pull(seq=1, room=4))[:-3],
        lambda: encode(Pull(seq=1, room=4)) + b"\0",
    ]
    before = garbage(unharmed)
    for number, address in enumerate(ports(unharmed).values()):
        with stranger(address, b"noise-%d" % number) as noise:
            for _ in range(60):
                noise.send(rng.choice(heads)(), *(rng.randbytes(50) for _ in range(rng.randint(0, 3))))
    wait_for("all to be counted", lambda: garbage(unharmed) == {port: n + 60 for port, n in before.items()})


def test_bogus_answers_and_leases_change_no_label(unharmed: Crew):
    address = ports(unharmed)["student"]
    before = unharmed.stats()
    spec = TensorSpec(name="logits", dtype="float64", shape=[1, 2])

    def forged_result(lease: int) -> Result:
        row = LeaseRows(lease=lease, count=1)
        return Result(rows=[row], version="", compute_s=0.0, tensors=[spec])

    forged = Labels(results=[forged_result(lease) for lease in range(50)])
    with stranger(address) as mallory:
        mallory.say(forged, *[bytes(16)] * 50)
        assert mallory.hear(Unknown)
        mallory.say(Hello(worker="mallory", teacher="teacher", fingerprint=OURS, process="p"))
        assert mallory.hear(Welcome)
        mallory.say(forged, *[bytes(16)] * 50)
        mallory.say(Failure(leases=list(range(50)), error="none of these was ever mine"))
        mallory.say(Return(leases=list(range(50))))
        mallory.say(Pong(seq=1 << 40, held=[1, 2, 3], pulled=1 << 40, asleep=True))
        seqs = itertools.count(1)

        def pulled() -> Tasks | None:
            """Other workers may have all there is, again and again."""
            mallory.say(Pull(seq=next(seqs), room=5))
            answer = mallory.hear(Tasks | Idle)
            return answer if isinstance(answer, Tasks) else None

        answer = wait_for("something to lease", pulled)
        lease = answer.groups[0].leases[0].id
        # Its own lease, and labels that are shorter than they say.
        mallory.say(Labels(results=[forged_result(lease)]), b"short")
        wait_for("the bad labels to be refused", lambda: unharmed.stats()["failed"] > before["failed"])
    after = unharmed.stats()
    assert after["duplicates"] - before["duplicates"] >= 150
    assert after["failed"] == before["failed"] + 1


def test_another_revision_is_told_so(unharmed: Crew):
    before = garbage(unharmed)
    for address in ports(unharmed).values():
        with stranger(address, b"from-the-future") as other:
            hello = encode(Hello(worker="w", teacher="teacher", fingerprint=OURS, process="p"))
            other.send(b"ED" + bytes([PROTOCOL_VERSION + 1]) + hello[len(b"ED.") :])
            assert other.hear_raw() == [PROTOCOL.preface]
    wait_for("both to be counted", lambda: garbage(unharmed) == {port: n + 1 for port, n in before.items()})


def test_a_frame_that_is_too_large_ends_its_connection_before_it_is_read(unharmed: Crew):
    for address in ports(unharmed).values():
        with handshaken(address) as connection:
            word = encode(Heartbeat(id="nobody"))
            connection.sendall(bytes([0, len(word)]) + word)
            assert heard(connection, encode(Unknown())), "the connection was no good to begin with"
            connection.sendall(b"\x02" + struct.pack(">Q", 1 << 40) + bytes(1 << 12))
            assert closed(connection)
    with handshaken(unharmed.job.address) as connection:
        connection.sendall(b"\x02" + struct.pack(">Q", CONTROL_FRAME_BYTES + 1) + bytes(1 << 12))
        assert closed(connection)
