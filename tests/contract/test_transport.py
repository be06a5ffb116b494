"""One suite for every transport; what only sockets can do wrong is in test_zeromq_faults.py."""

from __future__ import annotations

import socket
import threading
import time
import uuid

import pytest

from edldist.errors import ConfigError, PeerUnreachableError
from edldist.wire.messages import (
    MAX_FRAMES,
    Ack,
    Ping,
    Unknown,
)
from edldist.wire.transport import Hub, Poller, Received, Sender
from tests.contract.rig import ANYWHERE, Rig, greet, take, until


def unreachable(hub: Hub, peer: bytes) -> bool:
    try:
        hub.send(Sender(peer), Ping(seq=1, buffered=0))
    except PeerUnreachableError:
        return True
    return False


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
    greet(poller, hub, link, "t-1")
    wanted = [bytes(frame) for frame in frames]
    hub.send(Sender(b"t-1"), Ack(seq=1), frames)  # first: large answers are for those who were sent tensors
    (there,) = take(poller, link)
    assert [bytes(frame) for frame in there.frames] == wanted
    link.send(Ack(seq=2), there.frames)
    (back,) = take(poller, hub)
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
