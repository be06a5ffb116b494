"""A link by an address file: when it looks again, when it moves, and what never holds it up."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from edldist.address_file import AddressFile
from edldist.clock import FakeClock
from edldist.errors import ConfigError
from edldist.wire.messages import Ack, Message, Unknown
from edldist.wire.moving import LOOK_S, SILENT_S, FileLookup, MovingLink
from edldist.wire.transport import Outgoing, Received, Sender

ONE, TWO = "tcp://one:1", "tcp://two:2"


class FakeLink:
    """Keeps what is sent, and has what somebody put there."""

    def __init__(self, address: str) -> None:
        if address.startswith("tcp://bad"):
            raise ConfigError(f"cannot connect to {address}")
        self.address = address
        self.garbage = 1
        self.sent: list[Message] = []
        self.answers: list[Message] = []
        self.closed: bool | None = None
        self.trouble = ""
        self.renewed = 0

    def send(self, message: Message, frames: Outgoing = ()) -> bool:
        self.sent.append(message)
        return True

    def receive(self) -> Received | None:
        return Received(Sender(b""), self.answers.pop(0), []) if self.answers else None

    def close(self, at_once: bool = False) -> None:
        self.closed = at_once


class FakeLookup:
    def __init__(self, address: str | None) -> None:
        self.address: str | None = None
        self.said = address
        self.looks: list[float] = []
        self.hangs = False

    def look(self, wait_s: float = 0.0) -> None:
        self.looks.append(wait_s)
        if not self.hangs:
            self.address = self.said or self.address


class Scene:
    def __init__(self, address: str | None) -> None:
        self.clock = FakeClock()
        self.lookup = FakeLookup(address)
        self.links: list[FakeLink] = []
        self.link = MovingLink(self._connect, self.lookup, self.clock.monotonic)

    def _connect(self, address: str) -> FakeLink:
        self.links.append(FakeLink(address))
        return self.links[-1]

    def pass_time(self, seconds: float) -> None:
        """Time passes, with a look at the link ten times a second, as its owner's turns do."""
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            self.link.receive()


def test_it_links_to_what_the_file_says_at_first() -> None:
    scene = Scene(ONE)
    assert scene.link.address == ONE
    assert scene.link.send(Unknown()) and scene.links[0].sent == [Unknown()]
    assert len(scene.lookup.looks) == 1 and scene.link.renewed == 0


def test_without_a_file_it_looks_until_there_is_one_and_sends_nothing_meanwhile() -> None:
    scene = Scene(None)
    assert scene.link.address == "" and scene.link.garbage == 0
    assert not scene.link.send(Unknown())
    scene.pass_time(3.5 * LOOK_S)
    assert len(scene.lookup.looks) == 1 + 3
    scene.lookup.said = ONE
    scene.pass_time(LOOK_S)
    assert scene.link.send(Unknown()) and scene.links[0].sent == [Unknown()]
    scene.link.close(at_once=True)
    assert scene.links[0].closed is True


def test_a_link_on_which_nothing_is_asked_is_not_silent() -> None:
    scene = Scene(ONE)
    scene.lookup.said = TWO
    scene.pass_time(10 * SILENT_S)
    assert len(scene.lookup.looks) == 1 and scene.link.address == ONE


def test_it_moves_when_nobody_answers_and_the_file_says_another_place() -> None:
    scene = Scene(ONE)
    scene.link.send(Unknown())
    scene.lookup.said = TWO
    scene.pass_time(SILENT_S - 0.2)
    assert scene.link.address == ONE
    scene.link.send(Unknown())  # another question does not make the first one any younger
    scene.pass_time(0.5)
    assert scene.link.address == TWO
    assert scene.links[0].closed is True, "what waits there is of no use to anybody"
    assert scene.link.garbage == 2 and scene.link.renewed == 1
    scene.links[1].answers.append(Ack(seq=1))
    received = scene.link.receive()
    assert received is not None and received.message == Ack(seq=1)
    scene.links[1].renewed = 2  # it made its connection anew
    assert scene.link.renewed == 3


def test_an_answer_ends_the_silence() -> None:
    scene = Scene(ONE)
    scene.lookup.said = TWO
    for _ in range(5):
        scene.link.send(Unknown())
        scene.pass_time(SILENT_S - 0.2)
        scene.links[0].answers.append(Ack(seq=1))
        assert scene.link.receive() is not None
    scene.pass_time(10 * SILENT_S)
    assert scene.link.address == ONE and len(scene.lookup.looks) == 1


def test_a_silent_one_stays_where_it_is_while_the_file_says_nothing_else() -> None:
    scene = Scene(ONE)
    scene.link.send(Unknown())
    scene.pass_time(SILENT_S + 5.5 * LOOK_S)
    assert len(scene.links) == 1 and 5 <= len(scene.lookup.looks) - 1 <= 6
    scene.lookup.hangs = True  # and while the file system does
    scene.lookup.said = TWO
    scene.pass_time(5 * LOOK_S)
    assert scene.link.address == ONE
    scene.lookup.address = TWO  # the answer comes at last
    scene.link.receive()
    assert scene.link.address == TWO


def test_an_address_that_cannot_be_used_leaves_the_link_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(ONE)
    scene.link.send(Unknown())
    scene.lookup.said = "tcp://bad:1"
    scene.pass_time(3 * SILENT_S)
    assert scene.link.address == ONE and caplog.text.count("cannot connect to tcp://bad:1") == 1
    scene.lookup.said = TWO
    scene.pass_time(2 * LOOK_S)
    assert scene.link.address == TWO


# --- reading the file --------------------------------------------------------------------------------


def test_a_lookup_reads_in_a_thread_of_its_own_and_wakes_whoever_waits(tmp_path: Path) -> None:
    file, woken = AddressFile(tmp_path / "c.json"), threading.Event()
    lookup = FileLookup(file, woken.set)
    lookup.look(20.0)
    assert lookup.address is None and not woken.is_set()
    file.write({"address": ONE})
    lookup.look()
    assert woken.wait(20) and lookup.address == ONE


def test_a_file_system_that_hangs_holds_up_nobody_and_gets_one_thread(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    os.mkfifo(path)
    lookup = FileLookup(AddressFile(path), lambda: None)
    before, began = threading.active_count(), time.monotonic()
    for _ in range(3):
        lookup.look(0.01)
    assert threading.active_count() == before + 1 and time.monotonic() - began < 10
    path.write_bytes(b'{"address": "tcp://one:1"}')  # a reader of a pipe waits for who writes it
    lookup.look(20.0)
    assert lookup.address == ONE


def test_a_damaged_file_is_said_once_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = AddressFile(tmp_path / "c.json")
    file.write({"address": ONE})
    lookup = FileLookup(file, lambda: None)
    lookup.look(20.0)
    file.path.write_text("{")
    for _ in range(3):
        lookup.look(20.0)
    assert lookup.address == ONE and caplog.text.count("is no address file") == 1
