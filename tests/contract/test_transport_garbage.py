"""What is no message, or one of another version, harms nothing: the same at every transport."""

from __future__ import annotations

import msgspec
import pytest

from edldist.errors import ProtocolVersionError
from edldist.wire.memory import MemoryHub, MemoryLink
from edldist.wire.messages import (
    MAGIC,
    PROTOCOL,
    PROTOCOL_VERSION,
    Ack,
    Heartbeat,
    Unknown,
    encode,
)
from edldist.wire.simulated.endpoints import SimulatedHub, SimulatedLink
from edldist.wire.transport import SKIPPED_A_TURN, Hub, Link, Sender
from edldist.wire.zmq.transport import ZmqTransport
from tests.contract.rig import ANYWHERE, Rig, greet, take, until

OTHER_VERSION = MAGIC + bytes([PROTOCOL_VERSION + 1]) + b"from the future"
OTHER_FIELDS = (
    PROTOCOL.preface[:-1] + bytes([PROTOCOL.preface[-1] ^ 1]) + encode(Ack(seq=1))[len(PROTOCOL.preface) :]
)
"""What another revision says, whose messages have other fields."""
OTHERS = pytest.mark.parametrize("other", [OTHER_VERSION, OTHER_FIELDS], ids=["number", "fields"])


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
    pytest.param([PROTOCOL.preface], id="preface alone"),
    pytest.param([PROTOCOL.preface + b"\x91" * 100_000], id="deep"),
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
    greet(poller, hub, link, "t-1")  # a stranger's first word is short
    for size in (1_000, 1_100):
        stats = {f"figure {number}": "x" * size for number in range(1_000)}
        send_raw(link, [PROTOCOL.preface + msgspec.msgpack.encode(Heartbeat(id="t-1", stats=stats))])
    link.send(Ack(seq=1))
    whole, after = take(poller, hub, 2)
    assert isinstance(whole.message, Heartbeat) and after.message == Ack(seq=1)
    assert hub.garbage == 1


@OTHERS
def test_another_revision_is_told_so_by_a_hub(rig: Rig, other: bytes) -> None:
    """In no more bytes than both of them understand: a flood is answered with no greater one."""
    poller = rig.poller()
    hub = poller.bind(ANYWHERE)
    link = poller.connect(hub.address, "future")
    send_raw(link, [other])
    link.send(Ack(seq=1))
    assert take(poller, hub)[0].message == Ack(seq=1)
    assert hub.garbage == 1
    until(poller, lambda: _heard(link) == [PROTOCOL.preface])


def _heard(link: Link) -> list[bytes] | None:
    """The frames of what has come, as another revision would read them."""
    if isinstance(link, MemoryLink):
        return link._inbox.popleft() if link._inbox else None
    if isinstance(link, SimulatedLink):
        return list(link.inbox.popleft()[1]) if link.inbox else None
    frames = link._receive_frames()
    return None if frames is None else [bytes(frame) for frame in frames]


@OTHERS
def test_another_revision_raises_on_a_link(rig: Rig, other: bytes) -> None:
    poller = rig.poller()
    hub = poller.bind(ANYWHERE)
    link = poller.connect(hub.address, "t-1")
    greet(poller, hub, link, "t-1")
    _from_hub(hub, b"t-1", [other])
    with pytest.raises(ProtocolVersionError, match="same edldist everywhere") as caught:
        take(poller, link)
    assert hub.address in str(caught.value)
    assert caught.value.ours == PROTOCOL.name != caught.value.theirs


def test_the_log_has_another_revision_whatever_came_before(caplog: pytest.LogCaptureFixture) -> None:
    poller = ZmqTransport().poller()
    hub = poller.bind(ANYWHERE)
    link = poller.connect(hub.address, "t-1")
    for frame in (b"junk", b"more", OTHER_FIELDS, OTHER_FIELDS):
        send_raw(link, [frame])
    link.send(Ack(seq=1))
    take(poller, hub)
    poller.close()
    first, second = (record.getMessage() for record in caplog.records)
    assert "malformed" in first and "b'junk'" in first
    assert "another revision" in second and PROTOCOL.name in second
