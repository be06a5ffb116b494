"""One suite for every transport; what only sockets can do wrong is in test_zeromq_faults.py."""

from __future__ import annotations

import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import msgspec
import pytest

from edldist.errors import ConfigError, PeerUnreachableError, ProtocolVersionError
from edldist.wire.memory import MemoryHub, MemoryTransport
from edldist.wire.messages import (
    MAGIC,
    MAX_FRAMES,
    PROTOCOL_VERSION,
    Ack,
    Heartbeat,
    Ping,
    Refused,
    Unknown,
    encode,
)
from edldist.wire.simulated.endpoints import SimulatedHub, SimulatedPoller
from edldist.wire.simulated.network import Network
from edldist.wire.transport import SKIPPED_A_TURN, Hub, Link, Poller, Received, Sender, Transport
from edldist.wire.zmq.transport import ZmqTransport
from tests.simulation.schedule import Schedule

WITHIN_S = 10.0
ANYWHERE = "tcp://127.0.0.1:0"
OTHER_VERSION = MAGIC + bytes([PROTOCOL_VERSION + 1]) + b"from the future"


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


@pytest.fixture(params=TRANSPORTS)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    rig = Rig(TRANSPORTS[request.param]())
    yield rig
    rig.close()


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


def unreachable(hub: Hub, peer: bytes) -> bool:
    try:
        hub.send(Sender(peer), Ping(seq=1, buffered=0))
    except PeerUnreachableError:
        return True
    return False


def send_raw(link: Link, frames: list[bytes]) -> None:
    """Send what is no message, as a broken or hostile peer does."""
    if hasattr(link, "send_raw"):
        link.send_raw(frames)
    else:
        link._socket.send_multipart(frames)


def test_the_hub_tells_the_port_that_was_chosen(rig: Rig) -> None:
    first, second = rig.poller().bind(ANYWHERE), rig.poller().bind(ANYWHERE)
    assert first.address != second.address
    assert not first.address.endswith(":0")
    assert first.address.startswith("tcp://127.0.0.1:")


def test_messages_travel_both_ways_in_order(rig: Rig) -> None:
    poller = rig.poller()
    hub = poller.bind(ANYWHERE)
    link = poller.connect(hub.address, "t-1")
    assert all(link.send(Ack(seq=number)) for number in range(500))
    received = take(poller, hub, 500)
    assert [r.message for r in received] == [Ack(seq=number) for number in range(500)]
    assert {r.sender.route for r in received} == {b"t-1"}
    for number in range(500):
        hub.send(Sender(b"t-1"), Ack(seq=number))
    answers = take(poller, link, 500)
    assert [r.message for r in answers] == [Ack(seq=number) for number in range(500)]
    assert {r.sender.route for r in answers} == {b""}
    assert hub.receive() is None and link.receive() is None


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([b"", b"a", b"", bytes(range(256)), b""], id="small and empty ones"),
        pytest.param([bytes(range(251)) * 20_000, b"x", bytes(3_000_000)], id="megabytes"),
        pytest.param([bytes([n % 256]) * (n % 7) for n in range(2_000)], id="two thousand"),
        pytest.param([bytearray(b"abc"), memoryview(b"defg")[1:3]], id="other buffers"),
    ],
)
def test_frames_arrive_intact_both_ways(rig: Rig, frames: list[bytes]) -> None:
    poller = rig.poller()
    hub = poller.bind(ANYWHERE)
    link = poller.connect(hub.address, "t-1")
    wanted = [bytes(frame) for frame in frames]
    link.send(Ack(seq=1), frames)
    (there,) = take(poller, hub)
    assert [bytes(frame) for frame in there.frames] == wanted
    hub.send(Sender(b"t-1"), Ack(seq=2), there.frames)
    (back,) = take(poller, link)
    assert (back.message, [bytes(frame) for frame in back.frames]) == (Ack(seq=2), wanted)


def test_frames_outlive_the_endpoint_that_received_them(rig: Rig) -> None:
    poller = rig.poller()
    hub = poller.bind(ANYWHERE)
    poller.connect(hub.address, "t-1").send(Unknown(), [b"k" * 100_000])
    frames = take(poller, hub)[0].frames
    poller.close()
    assert bytes(frames[0]) == b"k" * 100_000


def test_received_frames_can_be_written_to(rig: Rig) -> None:
    """Tensors are laid over them; torch takes no read-only memory."""
    poller = rig.poller()
    hub = poller.bind(ANYWHERE)
    poller.connect(hub.address, "t-1").send(Unknown(), [b"a" * 10, b"b" * 100_000])
    assert [frame.readonly for frame in take(poller, hub)[0].frames] == [False, False]


def test_each_of_several_links_gets_its_own_answers(rig: Rig) -> None:
    server, clients = rig.poller(), rig.poller()
    hub = server.bind(ANYWHERE)
    links = {f"t-{number}": clients.connect(hub.address, f"t-{number}") for number in range(8)}
    for number, link in enumerate(links.values()):
        link.send(Ack(seq=number))
    for received in take(server, hub, 8):
        hub.send(received.sender, received.message, [received.sender.route])
    for number, (name, link) in enumerate(links.items()):
        (answer,) = take(clients, link)
        assert answer.message == Ack(seq=number)
        assert bytes(answer.frames[0]) == name.encode()
        assert link.receive() is None


def test_one_poller_may_serve_several_hubs(rig: Rig) -> None:
    poller = rig.poller()
    links = []
    for number in range(3):
        source = rig.poller().bind(ANYWHERE)
        link = poller.connect(source.address, "t-1")
        link.send(Ack(seq=number))
        links.append((source, link))
    for number, (source, _) in enumerate(links):
        assert take(poller, source)[0].message == Ack(seq=number)


def test_a_peer_that_was_never_there_is_unreachable(rig: Rig) -> None:
    hub = rig.poller().bind(ANYWHERE)
    with pytest.raises(PeerUnreachableError, match="nobody"):
        hub.send(Sender(b"nobody"), Unknown())


def test_a_peer_that_closed_is_unreachable_soon_and_others_are_not(rig: Rig) -> None:
    poller = rig.poller()
    hub = poller.bind(ANYWHERE)
    link, other = (poller.connect(hub.address, name) for name in ("t-1", "t-2"))
    greet(poller, hub, link, "t-1")
    greet(poller, hub, other, "t-2")
    link.close()
    until(poller, lambda: unreachable(hub, b"t-1"), within_s=1.0)
    hub.send(Sender(b"t-2"), Ack(seq=7))
    assert take(poller, other)[0].message == Ack(seq=7)


def test_what_a_closing_poller_sent_still_arrives(rig: Rig) -> None:
    poller, leaving = rig.poller(), rig.poller()
    hub = poller.bind(ANYWHERE)
    link = leaving.connect(hub.address, "t-1")
    for number in range(20):
        link.send(Ack(seq=number), [bytes(10_000)])
    leaving.close()
    assert [r.message.seq for r in take(poller, hub, 20)] == list(range(20))


def test_a_link_may_come_before_its_hub(rig: Rig) -> None:
    poller = rig.poller()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    link = poller.connect(address, "t-1")
    assert link.send(Ack(seq=1), [b"early"])
    assert link.send(Ack(seq=2))
    hub = _bind_again(poller, address)
    received = take(poller, hub, 2)
    assert [r.message for r in received] == [Ack(seq=1), Ack(seq=2)]
    assert bytes(received[0].frames[0]) == b"early"
    hub.close()
    hub = _bind_again(poller, address)
    heard: list[Received | None] = []

    def heard_again() -> bool:
        link.send(Ack(seq=3))
        heard.append(hub.receive())
        return heard[-1] is not None

    until(poller, heard_again)
    assert heard[-1].message == Ack(seq=3), "what had arrived is not repeated"


def test_a_link_finds_the_hub_that_follows_at_the_same_address(rig: Rig) -> None:
    poller = rig.poller()
    hub = poller.bind(ANYWHERE)
    address = hub.address
    link = poller.connect(address, "t-1")
    greet(poller, hub, link, "t-1")
    hub.close()
    hub = _bind_again(poller, address)

    def asked() -> bool:
        link.send(Ping(seq=1, buffered=1))
        return hub.receive() is not None

    until(poller, asked)
    hub.send(Sender(b"t-1"), Ack(seq=5))
    assert take(poller, link)[0].message == Ack(seq=5)


def _bind_again(poller: Poller, address: str) -> Hub:
    hubs: list[Hub] = []

    def bound() -> bool:
        try:
            hubs.append(poller.bind(address))
        except ConfigError:
            return False
        return True

    until(poller, bound)
    return hubs[0]


def test_a_later_link_of_the_same_name_takes_over(rig: Rig) -> None:
    """A worker that restarts under its old id must not be shut out by its own ghost."""
    poller = rig.poller()
    hub = poller.bind(ANYWHERE)
    ghost = poller.connect(hub.address, "t-1")
    greet(poller, hub, ghost, "t-1")
    link = poller.connect(hub.address, "t-1")
    greet(poller, hub, link, "t-1")
    hub.send(Sender(b"t-1"), Ack(seq=9))
    assert take(poller, link)[0].message == Ack(seq=9)
    assert ghost.receive() is None


def test_an_address_in_use_is_a_configuration_error(rig: Rig) -> None:
    hub = rig.poller().bind(ANYWHERE)
    with pytest.raises(ConfigError, match=f"{hub.address}.*in use"):
        rig.poller().bind(hub.address)


@pytest.mark.parametrize("address", ["", "nonsense", "127.0.0.1:7070"])
def test_what_is_no_address_is_a_configuration_error(rig: Rig, address: str) -> None:
    poller = rig.poller()
    with pytest.raises(ConfigError, match="cannot listen"):
        poller.bind(address)
    with pytest.raises(ConfigError, match="cannot connect.*tcp://HOST:PORT"):
        poller.connect(address, "t-1")


@pytest.mark.parametrize("endpoints", [False, True])
def test_waking_from_another_thread_ends_a_wait(rig: Rig, endpoints: bool) -> None:
    poller = rig.poller()
    if endpoints:
        hub = poller.bind(ANYWHERE)
        poller.connect(hub.address, "t-1")
    waiting = threading.Event()

    def ring() -> None:
        waiting.wait()
        poller.wake()

    thread = threading.Thread(target=ring)
    thread.start()
    began = time.monotonic()
    waiting.set()
    poller.wait(30)
    assert time.monotonic() - began < 5
    thread.join()


def test_waking_first_ends_the_next_wait_and_only_that(rig: Rig) -> None:
    poller = rig.poller()
    poller.wake()
    poller.wake()
    began = rig.now()
    poller.wait(30)
    assert rig.now() - began < 5
    began = rig.now()
    poller.wait(0.1)
    assert rig.now() - began >= 0.09


def test_a_message_ends_a_wait(rig: Rig) -> None:
    server, client = rig.poller(), rig.poller()
    hub = server.bind(ANYWHERE)
    link = client.connect(hub.address, "t-1")
    thread = threading.Thread(target=lambda: link.send(Ack(seq=1)))
    began = time.monotonic()
    thread.start()
    until(server, lambda: hub.receive() is not None)
    assert time.monotonic() - began < 5
    thread.join()


def test_a_message_that_is_already_there_ends_a_wait(rig: Rig) -> None:
    poller = rig.poller()
    hub = poller.bind(ANYWHERE)
    link = poller.connect(hub.address, "t-1")
    link.send(Ack(seq=1))
    link.send(Ack(seq=2))
    take(poller, hub)
    began = time.monotonic()
    until(poller, lambda: hub.receive() is not None)
    assert time.monotonic() - began < 5


def test_an_endpoint_closed_with_unread_messages_ends_no_wait(rig: Rig) -> None:
    poller = rig.poller()
    hub = poller.bind(ANYWHERE)
    link = poller.connect(hub.address, "t-1")
    link.send(Ack(seq=1))
    link.send(Ack(seq=2))
    take(poller, hub)  # the second one stays unread
    hub.close()
    link.close()
    poller.wait(0)
    began = rig.now()
    poller.wait(0.1)
    assert rig.now() - began >= 0.09


GARBAGE = [
    pytest.param([b""], id="empty"),
    pytest.param([b"", b"", b""], id="empty frames"),
    pytest.param([b"GET / HTTP/1.1\r\n\r\n"], id="http"),
    pytest.param([b"\x80\x04\x95K\x00."], id="pickle"),
    pytest.param([MAGIC], id="magic alone"),
    pytest.param([encode(Ack(seq=1))[:-1]], id="cut short"),
    pytest.param([encode(Ack(seq=1)) + b"!"], id="too long"),
    pytest.param([MAGIC + bytes([PROTOCOL_VERSION]) + b"\x91" * 100_000], id="deep"),
    pytest.param([b"junk", encode(Ack(seq=1))], id="header in the wrong place"),
]


@pytest.mark.parametrize("frames", GARBAGE)
def test_garbage_at_a_hub_is_counted_and_harms_nothing(rig: Rig, frames: list[bytes]) -> None:
    poller = rig.poller()
    hub = poller.bind(ANYWHERE)
    link, other = (poller.connect(hub.address, name) for name in ("bad", "good"))
    for number in range(3):
        send_raw(link, frames)
        link.send(Ack(seq=number))
        other.send(Ack(seq=number))
    received = take(poller, hub, 6)
    assert hub.garbage == 3
    for peer in (b"bad", b"good"):
        assert [r.message for r in received if r.sender.route == peer] == [
            Ack(seq=number) for number in range(3)
        ]
    hub.send(Sender(b"bad"), Unknown())
    assert take(poller, link)[0].message == Unknown()


def _from_hub(hub: Hub, peer: bytes, frames: list[bytes]) -> None:
    if isinstance(hub, MemoryHub):
        hub._network._to_link(hub.address, peer, frames)
    elif isinstance(hub, SimulatedHub):
        hub.send_raw(peer, frames)
    else:
        hub._socket.send_multipart([peer, *frames])


@pytest.mark.parametrize("frames", GARBAGE)
def test_garbage_at_a_link_is_counted_and_harms_nothing(rig: Rig, frames: list[bytes]) -> None:
    poller = rig.poller()
    hub = poller.bind(ANYWHERE)
    link = poller.connect(hub.address, "t-1")
    greet(poller, hub, link, "t-1")
    _from_hub(hub, b"t-1", frames)
    hub.send(Sender(b"t-1"), Ack(seq=1))
    assert take(poller, link)[0].message == Ack(seq=1)
    assert link.garbage == 1


@pytest.mark.parametrize("at", ["hub", "link"])
@pytest.mark.parametrize("frames", [[b"junk"], [OTHER_VERSION]], ids=["junk", "another version"])
def test_a_flood_of_garbage_keeps_nobody_from_other_work(rig: Rig, at: str, frames: list[bytes]) -> None:
    """However much there is of it, a turn looks at a bounded number, and what is good arrives in the end."""
    if at == "link" and frames == [OTHER_VERSION]:
        return  # ends the link
    poller = rig.poller()
    hub = poller.bind(ANYWHERE)
    link = poller.connect(hub.address, "t-1")
    greet(poller, hub, link, "t-1")
    endpoint: Hub | Link = hub if at == "hub" else link
    for _ in range(20 * SKIPPED_A_TURN):
        send_raw(link, frames) if at == "hub" else _from_hub(hub, b"t-1", frames)
    link.send(Ack(seq=1)) if at == "hub" else hub.send(Sender(b"t-1"), Ack(seq=1))
    poller.wait(1)
    before, turns = endpoint.garbage, 0
    while (received := endpoint.receive()) is None:
        turns += 1
        assert endpoint.garbage - before <= SKIPPED_A_TURN
        before = endpoint.garbage
        poller.wait(0.01)
    assert received.message == Ack(seq=1)
    assert turns >= 19 and endpoint.garbage == 20 * SKIPPED_A_TURN


def test_a_turn_that_has_seen_its_share_of_garbage_sees_one_more_at_a_call(rig: Rig) -> None:
    poller = rig.poller()
    hub = poller.bind(ANYWHERE)
    link = poller.connect(hub.address, "t-1")
    for _ in range(2 * SKIPPED_A_TURN):
        send_raw(link, [b"junk"])

    def looked() -> bool:
        return hub.receive() is None and hub.garbage >= SKIPPED_A_TURN

    until(poller, looked)
    seen = hub.garbage
    for number in range(1, 4):
        assert hub.receive() is None
        assert hub.garbage == seen + number


def test_a_header_of_more_than_its_limit_is_garbage(rig: Rig) -> None:
    """Whatever is in it: what it decodes into may take many times its size."""
    poller = rig.poller()
    hub = poller.bind(ANYWHERE)
    link = poller.connect(hub.address, "t-1")
    start = MAGIC + bytes([PROTOCOL_VERSION])
    for size in (1_000, 1_100):
        stats = {f"figure {number}": "x" * size for number in range(1_000)}
        send_raw(link, [start + msgspec.msgpack.encode(Heartbeat(id="t-1", stats=stats))])
    link.send(Ack(seq=1))
    whole, after = take(poller, hub, 2)
    assert isinstance(whole.message, Heartbeat) and after.message == Ack(seq=1)
    assert hub.garbage == 1


def test_another_version_is_refused_by_a_hub(rig: Rig) -> None:
    poller = rig.poller()
    hub = poller.bind(ANYWHERE)
    link = poller.connect(hub.address, "future")
    send_raw(link, [OTHER_VERSION])
    link.send(Ack(seq=1))
    assert take(poller, hub)[0].message == Ack(seq=1)
    (answer,) = take(poller, link)
    assert isinstance(answer.message, Refused)
    assert f"protocol {PROTOCOL_VERSION + 1}" in answer.message.reason
    assert hub.garbage == 1


def test_another_version_raises_on_a_link(rig: Rig) -> None:
    poller = rig.poller()
    hub = poller.bind(ANYWHERE)
    link = poller.connect(hub.address, "t-1")
    greet(poller, hub, link, "t-1")
    _from_hub(hub, b"t-1", [OTHER_VERSION])
    with pytest.raises(ProtocolVersionError, match="same edldist version"):
        take(poller, link)


def test_closing_twice_is_closing_once(rig: Rig) -> None:
    poller = rig.poller()
    hub = poller.bind(ANYWHERE)
    link = poller.connect(hub.address, "t-1")
    for endpoint in (link, hub, poller, link, hub, poller):
        endpoint.close()


def test_waking_a_closed_poller_harms_nothing(rig: Rig) -> None:
    poller = rig.poller()
    poller.close()
    poller.wake()


def test_closing_a_hub_frees_its_port(rig: Rig) -> None:
    poller = rig.poller()
    hub = poller.bind(ANYWHERE)
    address = hub.address
    hub.close()
    assert _bind_again(poller, address).address == address


def test_closing_a_poller_frees_its_ports(rig: Rig) -> None:
    poller = rig.poller()
    address = poller.bind(ANYWHERE).address
    poller.close()
    assert rig.poller().bind(address).address == address


def test_names_need_not_be_ascii(rig: Rig) -> None:
    poller = rig.poller()
    hub = poller.bind(ANYWHERE)
    name = f"Prüfer-{uuid.uuid4().hex}"
    greet(poller, hub, poller.connect(hub.address, name), name)


def test_thousands_of_frames_in_flight_arrive(rig: Rig) -> None:
    server, client = rig.poller(), rig.poller()
    hub = server.bind(ANYWHERE)
    link = client.connect(hub.address, "t-1")
    frames = [bytes([number % 256]) * 64 for number in range(MAX_FRAMES - 1)]
    for number in range(3):
        assert link.send(Ack(seq=number), frames)
    received = take(server, hub, 3)
    assert [r.message.seq for r in received] == [0, 1, 2]
    for one in received:
        assert [bytes(frame) for frame in one.frames] == frames
