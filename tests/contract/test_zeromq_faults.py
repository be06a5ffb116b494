"""What only real sockets meet: oversized frames, foreign protocols, dead processes, descriptors."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from edldist.address import parse_address
from edldist.errors import ConfigError, PeerUnreachableError
from edldist.wire.messages import MAX_FRAMES, Ack, Ping, Unknown
from edldist.wire.transport import Sender
from edldist.wire.zmq.endpoints import ZmqHub, ZmqLink
from edldist.wire.zmq.poller import ZmqPoller
from edldist.wire.zmq.transport import ZmqTransport
from tests.hosts import with_ipv6

pytestmark = pytest.mark.usefixtures("open_link")
ANYWHERE = "tcp://127.0.0.1:0"
SMALL = 64 << 10


@pytest.fixture
def poller() -> Iterator[ZmqPoller]:
    poller = ZmqTransport(max_frame_bytes=SMALL).poller()
    yield poller
    poller.close()


def until(poller: ZmqPoller, step: Callable[[], bool], within_s: float = 90.0) -> float:
    began = time.monotonic()
    while not step():
        assert time.monotonic() - began < within_s, f"not within {within_s} s"
        poller.wait(0.005)
    return time.monotonic() - began


def next_of(poller: ZmqPoller, endpoint: ZmqHub | ZmqLink):
    taken = []

    def took() -> bool:
        if (received := endpoint.receive()) is not None:
            taken.append(received)
        return bool(taken)

    until(poller, took)
    return taken[0]


class Vanishing:
    """A socket whose only message is gone between the question and the reading."""

    def __init__(self, socket: zmq.Socket) -> None:
        self._socket = socket

    def get(self, option):
        return zmq.POLLIN if option == zmq.EVENTS else self._socket.get(option)

    def __getattr__(self, name):
        return getattr(self._socket, name)


@pytest.mark.parametrize("tensors", [True, False])
def test_a_message_that_goes_with_its_connection_while_it_is_asked_for_is_none(tensors) -> None:
    poller = ZmqTransport(tensors=tensors).poller()
    link = poller.connect("tcp://127.0.0.1:9", "t-1")
    link._socket = Vanishing(link._socket)
    assert link.receive() is None
    poller.close()


def unreachable(hub: ZmqHub, peer: bytes) -> bool:
    try:
        hub.send(Sender(peer), Ping(seq=1, buffered=0))
    except PeerUnreachableError:
        return True
    return False


def host_port(hub: ZmqHub) -> tuple[str, int]:
    host, _, port = hub.address.removeprefix("tcp://").rpartition(":")
    return host, int(port)


def test_an_oversized_frame_costs_its_sender_the_connection_and_nobody_else(poller: ZmqPoller) -> None:
    hub = poller.bind(ANYWHERE)
    careless = ZmqTransport().poller()
    try:
        big, good = careless.connect(hub.address, "big"), careless.connect(hub.address, "good")
        for link in (big, good):
            link.send(Unknown(), [bytes(SMALL)])
        assert {next_of(poller, hub).sender.route, next_of(poller, hub).sender.route} == {b"big", b"good"}
        big.send(Ack(seq=1), [bytes(SMALL + 1)])
        until(poller, lambda: unreachable(hub, b"big"))
        good.send(Ack(seq=2), [b"still here"])
        received = next_of(poller, hub)
        assert (received.sender.route, received.message) == (b"good", Ack(seq=2))
        big.send(Ack(seq=3))
        received = next_of(poller, hub)
        assert (received.sender.route, received.message) == (b"big", Ack(seq=3)), (
            "it may come back and behave"
        )
    finally:
        careless.close()


def test_a_link_comes_back_after_an_oversized_frame(
    poller: ZmqPoller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edldist.wire.zmq.endpoints._STUCK_S", 0.1)
    careless = ZmqTransport().poller()
    try:
        hub = careless.bind(ANYWHERE)
        link = poller.connect(hub.address, "t-1")
        link.send(Unknown())
        next_of(careless, hub)
        hub.send(Sender(b"t-1"), Ack(seq=1), [bytes(SMALL + 1)])
        until(careless, lambda: unreachable(hub, b"t-1"))

        def greeted_again() -> bool:
            link.send(Unknown())
            poller.wait(0.02)
            return hub.receive() is not None and not unreachable(hub, b"t-1")

        until(careless, greeted_again)
        hub.send(Sender(b"t-1"), Ack(seq=2))
        seen = []
        until(
            poller, lambda: seen.append(r.message) or False if (r := link.receive()) else Ack(seq=2) in seen
        )
        assert Ack(seq=1) not in seen
    finally:
        careless.close()


def test_a_message_of_too_many_frames_is_dropped(poller: ZmqPoller) -> None:
    hub = poller.bind(ANYWHERE)
    link = poller.connect(hub.address, "t-1")
    link.send(Ack(seq=1), [b""] * MAX_FRAMES)
    link.send(Ack(seq=2))
    assert next_of(poller, hub).message == Ack(seq=2)
    assert hub.garbage == 1


def test_tensors_where_none_travel_are_garbage() -> None:
    poller = ZmqTransport(tensors=False).poller()
    try:
        hub = poller.bind(ANYWHERE)
        link = poller.connect(hub.address, "t-1")
        link.send(Ack(seq=1), [b"a tensor"])
        link.send(Ack(seq=2))
        assert next_of(poller, hub).message == Ack(seq=2)
        assert hub.garbage == 1
    finally:
        poller.close()


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 50, id="http"),
        pytest.param(bytes(range(256)) * 64, id="all bytes"),
        pytest.param(b"\xff" + b"\x00" * 8 + b"\x7f" + b"\x03" + b"\xff" * 200, id="half a greeting"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_foreign_bytes_on_the_port_harm_nobody(poller: ZmqPoller, garbage: bytes) -> None:
    hub = poller.bind(ANYWHERE)
    link = poller.connect(hub.address, "good")
    link.send(Ack(seq=1))
    assert next_of(poller, hub).message == Ack(seq=1)
    with socket.create_connection(host_port(hub)) as stranger:
        stranger.sendall(garbage)
        for seq in range(20):
            link.send(Ack(seq=seq))
            assert next_of(poller, hub).message == Ack(seq=seq)
            hub.send(Sender(b"good"), Ack(seq=seq))
            assert next_of(poller, link).message == Ack(seq=seq)
    newcomer = poller.connect(hub.address, "newcomer")
    newcomer.send(Unknown())
    assert next_of(poller, hub).sender.route == b"newcomer"


def test_a_link_outlives_a_stranger_at_its_address(
    poller: ZmqPoller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something else held the port; then the hub came."""
    monkeypatch.setattr("edldist.wire.zmq.endpoints._STUCK_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        address = f"tcp://127.0.0.1:{stranger.getsockname()[1]}"
        link = poller.connect(address, "t-1")
        connection, _ = stranger.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(100))
            until(poller, lambda: not link.send(Unknown()))
    hub = poller.bind(address)

    def heard() -> bool:
        link.send(Unknown())
        return hub.receive() is not None

    until(poller, heard)
    hub.send(Sender(b"t-1"), Ack(seq=4))
    assert next_of(poller, link).message == Ack(seq=4)


def test_garbage_is_logged_once(poller: ZmqPoller, caplog: pytest.LogCaptureFixture) -> None:
    hub = poller.bind(ANYWHERE)
    link = poller.connect(hub.address, "bad")
    for _ in range(5):
        link._socket.send(b"garbage")
    link.send(Unknown())
    next_of(poller, hub)
    assert hub.garbage == 5
    assert len(caplog.records) == 1
    assert "bad" in caplog.text and hub.address in caplog.text


def test_a_port_held_by_something_else_is_a_configuration_error(poller: ZmqPoller) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = f"tcp://127.0.0.1:{holder.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"{address}.*in use.*free port"):
            poller.bind(address)


@pytest.mark.parametrize(
    "address",
    ["tcp://192.0.2.1:0", "tcp://127.0.0.1:99999", "tcp://127.0.0.1", "udp://127.0.0.1:1", "tcp://:"],
)
def test_an_address_that_cannot_be_bound_is_a_configuration_error(poller: ZmqPoller, address: str) -> None:
    with pytest.raises(ConfigError, match="cannot listen on|is no address"):
        poller.bind(address)


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:99999", "tcp://127.0.0.1", "nothing://h:1", "tcp://h:port"]
)
def test_an_address_that_cannot_be_connected_to_is_a_configuration_error(
    poller: ZmqPoller, address: str
) -> None:
    with pytest.raises(ConfigError, match="cannot connect to|is no address"):
        poller.connect(address, "t-1")


@with_ipv6
def test_who_listens_everywhere_is_reached_by_both_kinds_of_addresses(poller: ZmqPoller) -> None:
    hub = poller.bind("tcp://*:0")
    port = parse_address(hub.address, "test").port
    for host in ("127.0.0.1", "[::1]", "localhost"):
        poller.connect(f"tcp://{host}:{port}", host).send(Unknown())
        assert next_of(poller, hub).sender.route == host.encode()


def test_one_may_listen_by_a_name(poller: ZmqPoller) -> None:
    hub = poller.bind("tcp://localhost:0")
    poller.connect(hub.address, "t-1").send(Unknown())
    assert next_of(poller, hub).sender.route == b"t-1"


@with_ipv6
@pytest.mark.parametrize(("kinds", "wanted"), [([6], 1), ([6, 4], 0), ([4], 0), ([], 1)])
def test_a_link_goes_the_way_that_the_system_knows(
    poller: ZmqPoller, monkeypatch: pytest.MonkeyPatch, kinds: list[int], wanted: int
) -> None:
    """libzmq asks for addresses of one kind only, that of its option."""
    found = {
        4: (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", 9)),
        6: (socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("::1", 9, 0, 0)),
    }

    def getaddrinfo(*asked: object, **options: object) -> list[object]:
        if not kinds:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [found[kind] for kind in kinds]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    link = poller.connect("tcp://name:7070", "t-1")
    assert link._socket.getsockopt(zmq.IPV6) == wanted
    link._socket.setsockopt(zmq.LINGER, 0)


@with_ipv6
def test_literal_ipv6_addresses_work(poller: ZmqPoller) -> None:
    hub = poller.bind("tcp://[::1]:0")
    assert hub.address.startswith("tcp://[::1]:")
    poller.connect(hub.address, "t-1").send(Unknown())
    assert next_of(poller, hub).sender.route == b"t-1"


_PEER = """
import sys
from edldist.wire.messages import Unknown
from edldist.wire.zmq.transport import ZmqTransport
poller = ZmqTransport().poller()
link = poller.connect(sys.argv[1], "victim")
link.send(Unknown())
while True:
    poller.wait(60)
"""


def test_a_killed_process_is_found_unreachable_within_200_ms(poller: ZmqPoller) -> None:
    hub = poller.bind(ANYWHERE)
    process = subprocess.Popen([sys.executable, "-c", _PEER, hub.address])
    try:
        assert next_of(poller, hub).sender.route == b"victim"
        assert not unreachable(hub, b"victim")
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert until(poller, lambda: unreachable(hub, b"victim")) < 0.2
    finally:
        process.kill()
        process.wait()


def test_a_hub_tells_when_a_peer_takes_nothing_in_any_more(poller: ZmqPoller) -> None:
    """A frozen peer must not make the student's memory grow without bound, nor block it."""
    hub = poller.bind(ANYWHERE)
    process = subprocess.Popen([sys.executable, "-c", _PEER, hub.address])
    try:
        next_of(poller, hub)
        process.send_signal(signal.SIGSTOP)
        payload = bytes(SMALL)
        with pytest.raises(PeerUnreachableError, match="takes nothing in"):
            for _ in range(20_000):
                hub.send(Sender(b"victim"), Unknown(), [payload])
    finally:
        process.kill()
        process.wait()


def test_a_link_without_a_hub_says_when_it_is_full(poller: ZmqPoller) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        link = poller.connect(f"tcp://127.0.0.1:{free.getsockname()[1]}", "t-1")
        sent = 0
        while link.send(Ack(seq=sent)) and sent < 100_000:
            sent += 1
        assert 1_000 <= sent < 100_000
        link._socket.setsockopt(zmq.LINGER, 0)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_closing_gives_every_descriptor_back() -> None:
    def use() -> None:
        poller = ZmqTransport().poller()
        hub = poller.bind(ANYWHERE)
        link = poller.connect(hub.address, "t-1")
        link.send(Unknown())
        next_of(poller, hub)
        with pytest.raises(ConfigError):
            poller.bind("tcp://192.0.2.1:0")
        link.close()
        poller.close()

    use()
    gc.collect()
    before = _descriptors()
    for _ in range(20):
        use()
    gc.collect()
    assert _descriptors() == before


def test_ringing_during_a_close_never_hits_another_file() -> None:
    """Another thread may wake a poller while its owner closes it."""
    for _ in range(20):
        poller = ZmqTransport().poller()
        errors: list[BaseException] = []
        stop = threading.Event()

        def ring(poller: ZmqPoller = poller, errors: list = errors, stop: threading.Event = stop) -> None:
            try:
                while not stop.is_set():
                    poller.wake()
            except BaseException as exc:
                errors.append(exc)

        thread = threading.Thread(target=ring)
        thread.start()
        poller.close()
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        poller.wake()
        with pytest.raises(BlockingIOError):
            os.read(reading, 8)
        stop.set()
        thread.join()
        os.close(reading)
        os.close(writing)
        assert errors == []


def test_a_frame_is_lent_to_the_socket_only_where_that_is_worth_it() -> None:
    """What was copied is free again at once; what was lent holds its memory until it was sent."""
    poller = ZmqTransport(1 << 22, shared_memory=False).poller()
    try:
        link = poller.connect("tcp://127.0.0.1:1", "t-1")
        for nbytes, lent in (((256 << 10) - 1, False), (256 << 10, True)):
            memory = bytearray(nbytes)
            assert link.send(Ack(seq=1), [memoryview(memory)])
            if lent:
                with pytest.raises(BufferError):
                    memory.append(0)
            else:
                memory.append(0)
    finally:
        poller.close(at_once=True)
