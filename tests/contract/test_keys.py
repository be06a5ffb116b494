"""Where keys enter: with them a hub knows who sent a message, whatever name the sender gives itself."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import zmq
from zmq.auth import CURVE_ALLOW_ANY
from zmq.auth.thread import ThreadAuthenticator

from edldist.wire.messages import Ack
from edldist.wire.transport import Received, Sender
from edldist.wire.zmq.poller import ZmqPoller
from edldist.wire.zmq.transport import ZmqTransport

pytestmark = pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE")

HUB_PUBLIC, HUB_SECRET = zmq.curve_keypair() if zmq.has("curve") else (b"", b"")


class CurveKeys:
    """Every link has a pair of its own, the hub lets any of them in and notes whose it is."""

    def __init__(self) -> None:
        self.public, self._secret = zmq.curve_keypair()
        self._authenticator: ThreadAuthenticator | None = None

    def protect(self, socket: zmq.Socket[bytes]) -> None:
        if socket.type == zmq.ROUTER:
            self._authenticator = ThreadAuthenticator(socket.context)
            self._authenticator.start()
            self._authenticator.configure_curve(domain="*", location=CURVE_ALLOW_ANY)
            socket.curve_secretkey, socket.curve_server = HUB_SECRET, True
        else:
            socket.curve_publickey, socket.curve_secretkey = self.public, self._secret
            socket.curve_serverkey = HUB_PUBLIC

    def sender(self, frame: zmq.Frame) -> str:
        return str(frame.get("User-Id"))

    def close(self) -> None:
        if self._authenticator is not None:
            self._authenticator.stop()


@pytest.fixture
def poller() -> Iterator[ZmqPoller]:
    keys = CurveKeys()
    made = ZmqTransport(keys=keys, shared_memory=False).poller()
    yield made
    keys.close()
    made.close()


@pytest.fixture
def pollers() -> Iterator[list[ZmqPoller]]:
    made: list[ZmqPoller] = []
    yield made
    for one in made:
        one.close()


def next_of(poller: ZmqPoller, hub) -> Received:
    deadline = time.monotonic() + 90
    while (received := hub.receive()) is None:
        assert time.monotonic() < deadline
        poller.wait(0.02)
    return received


def test_a_sender_is_known_by_its_key_and_not_by_the_name_that_it_took(
    poller: ZmqPoller, pollers: list[ZmqPoller]
) -> None:
    hub = poller.bind("tcp://127.0.0.1:0")
    seen = []
    for seq in (1, 2):
        keys = CurveKeys()
        client = ZmqTransport(keys=keys, shared_memory=False).poller()
        pollers.append(client)
        client.connect(hub.address, "w").send(Ack(seq=seq), [b"tensor"])
        received = next_of(poller, hub)
        assert received.sender == Sender(b"w", keys.public.decode())
        assert bytes(received.frames[0]) == b"tensor"
        seen.append(received.sender)
    assert len(set(seen)) == 2 and {sender.route for sender in seen} == {b"w"}


def test_who_has_no_keys_is_not_heard(poller: ZmqPoller, pollers: list[ZmqPoller]) -> None:
    hub = poller.bind("tcp://127.0.0.1:0")
    stranger, friend = ZmqTransport().poller(), ZmqTransport(keys=CurveKeys(), shared_memory=False).poller()
    pollers += [stranger, friend]
    link = stranger.connect(hub.address, "stranger")
    link.send(Ack(seq=1))
    link._socket.setsockopt(zmq.LINGER, 0)
    for seq in range(20):
        friend.connect(hub.address, f"friend-{seq}").send(Ack(seq=seq))
        assert next_of(poller, hub).sender.route == b"friend-%d" % seq


def test_without_keys_a_sender_is_who_it_says_it_is(pollers: list[ZmqPoller]) -> None:
    server = ZmqTransport().poller()
    pollers.append(server)
    hub = server.bind("tcp://127.0.0.1:0")
    server.connect(hub.address, "w").send(Ack(seq=1))
    assert next_of(server, hub).sender == Sender(b"w", "")
