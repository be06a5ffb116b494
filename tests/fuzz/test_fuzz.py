"""A short fuzz of everything, in this process; the whole command beside a job is marked slow."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import pytest

from edldist.errors import WireError
from edldist.observe.http import Answer, HttpServer
from edldist.wire.messages import Ack, decode, encode
from edldist.wire.zmq.poller import ZmqPoller
from edldist.wire.zmq.transport import CONTROL_FRAME_BYTES, CONTROL_UNREAD_BYTES, ZmqTransport
from tests.fuzz import __main__ as command
from tests.fuzz.door import Knocks
from tests.fuzz.strangers import Dealer, Decoder, healthy, place_of, written
from tests.fuzz.streams import http, zmtp
from tests.fuzz.words import KINDS, Words

SEED = 7


@pytest.fixture
def words() -> Words:
    return Words(random.Random(SEED))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_valid_messages_are_drawn_of_every_kind(words: Words, kind: type) -> None:
    for _ in range(5):
        message = words.message((kind,))
        assert repr(decode(encode(message))) == repr(message)  # NaN is not itself


def test_most_headers_are_refused_and_some_are_not(words: Words) -> None:
    taken = 0
    for _ in range(2_000):
        try:
            decode(words.header())
            taken += 1
        except WireError:
            pass
    assert 50 < taken < 1_000


def test_the_decoder_refuses_or_decodes(words: Words) -> None:
    decoder = Decoder(words)
    for _ in range(5_000):
        decoder.one()


@pytest.fixture(params=[True, False], ids=["tensors", "control"])
def poller(request: pytest.FixtureRequest) -> Iterator[ZmqPoller]:
    made = (
        ZmqTransport(shared_memory=True)
        if request.param
        else ZmqTransport(CONTROL_FRAME_BYTES, max_unread_bytes=CONTROL_UNREAD_BYTES, tensors=False)
    )
    poller = made.poller()
    yield poller
    poller.close(at_once=True)


def test_a_hub_outlives_whatever_comes_to_its_port(poller: ZmqPoller, words: Words) -> None:
    hub = poller.bind("tcp://127.0.0.1:0")
    dealer = Dealer("dealer", hub.address, words)
    over = threading.Event()

    def talk() -> None:
        for _ in range(5):
            dealer._next = 0.0
            dealer.send()
        for _ in range(40):
            written(place_of(hub.address), zmtp(words), words.rng)
        over.set()

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        while not over.is_set():
            poller.wait(0.01)
            while hub.receive() is not None:
                pass
    finally:
        thread.join()
        dealer.close()
    link = poller.connect(hub.address, "good")
    link.send(Ack(seq=1))
    deadline = time.monotonic() + 60
    while (received := hub.receive()) is None or received.message != Ack(seq=1):
        assert time.monotonic() < deadline
        poller.wait(0.01)
    link.close(at_once=True)


def test_pages_outlive_whatever_is_asked(words: Words) -> None:
    server = HttpServer("127.0.0.1:0", lambda request: Answer(b"ok"))
    try:
        for _ in range(40):
            written(place_of(server.address), http(words), words.rng)
        healthy(server.address)
    finally:
        server.close()


def test_nobody_gets_through_the_stores_door_but_who_knows_the_word(words: Words) -> None:
    knocks = Knocks(words)
    try:
        for _ in range(120):
            knocks.knock()
        knocks.check()
    finally:
        knocks.close()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("keys", [[], ["--keys"]], ids=["without keys", "with keys"])
def test_a_job_goes_on_whatever_strangers_say(keys: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    code = command.main(["--inputs", "60000", "--seconds", "40", "--seed", "3", *keys])
    told = capfd.readouterr().out
    assert code == 0, told
    assert "nothing was found" in told
