"""What is no message, or one of another version, harms nothing: the same at every transport."""

from __future__ import annotations

import msgspec
import pytest

from edldist.errors import ProtocolVersionError
from edldist.wire.memory import MemoryHub
from edldist.wire.messages import (
    MAGIC,
    PROTOCOL_VERSION,
    Ack,
    Heartbeat,
    Refused,
    Unknown,
    encode,
)
from edldist.wire.simulated.endpoints import SimulatedHub
from edldist.wire.transport import SKIPPED_A_TURN, Hub, Link, Sender
from tests.contract.rig import ANYWHERE, Rig, greet, take, until

OTHER_VERSION = MAGIC + bytes([PROTOCOL_VERSION + 1]) + b"from the future"


def send_raw(link: Link, frames: list[bytes]) -> None:
    """Send what is no message, as a broken or hostile peer does."""
    if hasattr(link, "send_raw"):
        link.send_raw(frames)
    else:
        link._socket.send_multipart(frames)


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
