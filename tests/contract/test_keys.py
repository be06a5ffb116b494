"""With keys both ends prove who they are, each role with its own, and what they say is sealed."""

from __future__ import annotations

import contextlib
import math
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from edldist.errors import ConfigError
from edldist.keys.folder import KeyFolder
from edldist.keys.keyring import KeyNews, Known
from edldist.keys.live import LiveKeys
from edldist.keys.pair import COORDINATOR, OPERATOR, STUDENT, TEACHER, new_pair
from edldist.wire.messages import Ack, KeyRetired
from edldist.wire.transport import Received, Sender
from edldist.wire.zmq.endpoints import ZmqHub, ZmqLink
from edldist.wire.zmq.keys import SocketKeys
from edldist.wire.zmq.poller import ZmqPoller
from edldist.wire.zmq.transport import ZmqTransport

pytestmark = [
    pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE"),
    pytest.mark.timeout(240),
]
ANYWHERE = "tcp://127.0.0.1:0"
MEMBERS = (TEACHER, STUDENT, OPERATOR)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edldist.keys.live.LOOK_S", 0.02)
    monkeypatch.setattr("edldist.wire.zmq.handshakes._AGAIN_S", 0.05)


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    made = KeyFolder(tmp_path / "keys")
    made.make()
    return made


def as_it_is(folder: KeyFolder, place: Path) -> KeyFolder:
    """The keys of a machine that gets no newer ones."""
    place.mkdir(mode=0o700)
    for file in folder.path.iterdir():
        shutil.copy(file, place)
    return KeyFolder(place)


class Ends:
    """Pollers of several processes, all turned by this thread."""

    def __init__(self) -> None:
        self.pollers: list[ZmqPoller] = []
        self.ends: list[ZmqHub | ZmqLink] = []
        self.inbox: dict[ZmqHub | ZmqLink, list[Received]] = {}
        self.said = 100

    def poller(self, folder: KeyFolder | None, role: str, *admits: str, **options: object) -> ZmqPoller:
        keys = None if folder is None else SocketKeys(LiveKeys(folder.path, role), admits)
        options = {"shared_memory": False} | options
        made = ZmqTransport(keys=keys, **options).poller()  # type: ignore[arg-type]
        self.pollers.append(made)
        return made

    def hub(
        self, folder: KeyFolder | None, role: str = COORDINATOR, *admits: str, **options: object
    ) -> ZmqHub:
        hub = self.poller(folder, role, *(admits or MEMBERS), **options).bind(ANYWHERE)
        self.ends.append(hub)
        self.inbox[hub] = []
        return hub

    def link(
        self,
        hub: ZmqHub,
        folder: KeyFolder | None,
        role: str = TEACHER,
        to: str = COORDINATOR,
        route: str = "w",
        **options: object,
    ) -> ZmqLink:
        link = self.poller(folder, role, **options).connect(hub.address, route, to)
        assert isinstance(link, ZmqLink)
        self.ends.append(link)
        self.inbox[link] = []
        return link

    def turn(self) -> None:
        for poller in self.pollers:
            poller.wait(0.002)
        for end in self.ends:
            while (received := end.receive()) is not None:
                self.inbox[end].append(received)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 90
        while not condition():
            assert time.monotonic() < deadline
            self.turn()

    def heard(self, hub: ZmqHub, link: ZmqLink) -> Received:
        """The first message of a link, said again and again: those of a link that is made anew are lost."""
        first = self.said + 1

        def come() -> bool:
            self.said += 1
            link.send(Ack(seq=self.said), [b"tensor"])
            return bool(found())

        def found() -> list[Received]:
            return [
                each
                for each in self.inbox[hub]
                if isinstance(each.message, Ack) and each.message.seq >= first
            ]

        self.until(come)
        return found()[0]


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    for poller in made.pollers:
        poller.close(at_once=True)


def test_a_sender_is_known_by_its_key_and_role(ends: Ends, folder: KeyFolder) -> None:
    hub = ends.hub(folder)
    for role in MEMBERS:
        received = ends.heard(hub, ends.link(hub, folder, role))
        assert (received.sender.key, received.sender.role) == (folder.ring(role).own.public, role)
        assert bytes(received.frames[0]) == b"tensor"


def test_links_of_one_name_do_not_take_each_others_place(ends: Ends, folder: KeyFolder) -> None:
    """Nobody knows the route of another: with it he would get what is sent there."""
    hub = ends.hub(folder)
    links = [ends.link(hub, folder) for _ in range(2)]
    senders = [ends.heard(hub, link).sender for link in links]
    assert senders[0] != senders[1] and all(sender.route.startswith(b"w~") for sender in senders)
    for sender, link in zip(senders, links, strict=True):
        hub.send(sender, Ack(seq=7))
        ends.until(lambda link=link: bool(ends.inbox[link]))  # type: ignore[misc]
        assert ends.inbox[link][0].message == Ack(seq=7)


def test_a_role_that_has_no_business_here_is_not_let_in(
    ends: Ends, folder: KeyFolder, caplog: pytest.LogCaptureFixture
) -> None:
    hub = ends.hub(folder, STUDENT, TEACHER)
    stranger = ends.link(hub, folder, OPERATOR, to=STUDENT)
    stranger.send(Ack(seq=1))
    ends.until(lambda: bool(stranger.trouble))
    assert "does not know the key of operator" in stranger.trouble
    assert ends.heard(hub, ends.link(hub, folder, TEACHER, to=STUDENT)).sender.role == TEACHER
    assert any("turned away a process" in record.getMessage() for record in caplog.records)


def test_keys_of_another_folder_are_turned_away(ends: Ends, folder: KeyFolder, tmp_path: Path) -> None:
    other = KeyFolder(tmp_path / "other")
    other.make()
    hub = ends.hub(folder)
    link = ends.link(hub, other)
    link.send(Ack(seq=1))
    ends.until(lambda: bool(link.trouble))
    assert "proves none of the keys" in link.trouble
    assert not ends.inbox[hub] and hub.garbage == 0


def test_who_has_no_keys_is_not_heard(ends: Ends, folder: KeyFolder) -> None:
    hub = ends.hub(folder)
    stranger = ends.link(hub, None)
    stranger.send(Ack(seq=1))
    for _ in range(5):
        assert ends.heard(hub, ends.link(hub, folder)).sender.role == TEACHER
    ends.inbox[hub].clear()
    with socket.create_connection(("127.0.0.1", int(hub.address.rpartition(":")[2]))) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
        assert ends.heard(hub, ends.link(hub, folder)).sender.role == TEACHER


def test_a_hub_without_keys_is_not_talked_to(ends: Ends, folder: KeyFolder) -> None:
    hub = ends.hub(None)
    link = ends.link(hub, folder)
    link.send(Ack(seq=1))
    ends.until(lambda: bool(link.trouble))
    assert "or has no keys: start it with --keys" in link.trouble and not ends.inbox[hub]


def test_a_student_is_not_taken_for_a_coordinator(ends: Ends, folder: KeyFolder) -> None:
    hub = ends.hub(folder, STUDENT)
    link = ends.link(hub, folder, TEACHER, to=COORDINATOR)
    ends.until(lambda: bool(link.trouble))
    assert "the coordinator at" in link.trouble and not ends.inbox[hub]


def test_what_is_said_is_sealed(ends: Ends, folder: KeyFolder) -> None:
    """Between the ends lies somebody who reads every byte."""
    hub = ends.hub(folder)
    seen: list[bytes] = []
    place = int(hub.address.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pass_on(source: socket.socket, target: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(1 << 16):
                    seen.append(data)
                    target.sendall(data)
            target.close()

        def between() -> None:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", place))
            ways = [
                threading.Thread(target=pass_on, args=pair, daemon=True)
                for pair in ((near, far), (far, near))
            ]
            for way in ways:
                way.start()

        threading.Thread(target=between, daemon=True).start()
        link = ends.poller(folder, TEACHER).connect(f"tcp://127.0.0.1:{listener.getsockname()[1]}", "w")
        assert isinstance(link, ZmqLink)
        ends.ends.append(link)
        ends.inbox[link] = []
        assert bytes(ends.heard(hub, link).frames[0]) == b"tensor"
    assert seen and b"tensor" not in b"".join(seen) and b"ack" not in b"".join(seen)


def test_what_was_read_does_not_count_as_held(ends: Ends, folder: KeyFolder) -> None:
    """Sealed frames are longer on their way: a connection that is read would be cut off in the end."""
    hub = ends.hub(folder)
    link = ends.link(hub, folder)
    ends.heard(hub, link)
    ends.until(lambda: any(each.message == Ack(seq=ends.said) for each in ends.inbox[hub]))

    def held() -> int:
        (unread,) = hub.backlog.held().values()
        return unread

    before = held()
    for size in (0, 100, 221, 222, 223, 254, 255, 256, 70_000):
        ends.inbox[hub].clear()
        link.send(Ack(seq=2), [bytes(size), bytes(3)])
        ends.until(lambda: bool(ends.inbox[hub]))
        assert held() == before, size


def test_links_that_are_given_up_while_they_shake_hands_hold_up_no_other(
    ends: Ends, folder: KeyFolder
) -> None:
    """Else libzmq would wait for ever to tell of a handshake to somebody who does not listen any more."""
    hub, poller = ends.hub(folder), ends.poller(folder, TEACHER)

    def link(route: str) -> ZmqLink:
        made = poller.connect(hub.address, route)
        assert isinstance(made, ZmqLink)
        return made

    for number in range(60):
        given_up = link(f"given-up-{number}")
        given_up.send(Ack(seq=1))
        poller.wait(0.001 * (number % 4))
        given_up.close(at_once=True)
    last = link("w")
    ends.ends.append(last)
    ends.inbox[last] = []
    assert ends.heard(hub, last).sender.role == TEACHER


def test_keys_are_rotated_under_those_who_talk(ends: Ends, folder: KeyFolder) -> None:
    hub = ends.hub(folder)
    links = [ends.link(hub, folder, role, route=role) for role in MEMBERS]
    former = [ends.heard(hub, link).sender for link in links]
    assert hub.key_news() is None
    folder.rotate(keep_s=600)
    ends.until(lambda: hub._own == folder.ring(COORDINATOR).own.public)

    def all_new() -> bool:
        return all(
            ends.heard(hub, link).sender.key == folder.ring(role).own.public
            for link, role in zip(links, MEMBERS, strict=True)
        )

    ends.until(all_new)
    assert hub.key_news() == KeyNews(rotated=True, added=4, retired=0, former=4)
    assert hub.key_news() is None
    assert folder.retire() == 4
    for link, role, sender in zip(links, MEMBERS, former, strict=True):
        received = ends.heard(hub, link)
        assert received.sender.role == role and received.sender.key != sender.key
        assert received.sender.owner == sender.owner == role
    news: list[KeyNews] = []
    ends.until(lambda: bool(found := hub.key_news()) and not news.append(found))
    assert news == [KeyNews(rotated=False, added=0, retired=4, former=0)]


def test_whoever_was_turned_away_tries_the_hubs_newest_key_first(
    ends: Ends, folder: KeyFolder, tmp_path: Path
) -> None:
    """Between two turns away the hub may have read the newest keys, and listen with its own of these."""
    stale = as_it_is(folder, tmp_path / "stale")
    folder.rotate(keep_s=600)
    link = ends.link(ends.hub(stale), folder)
    ends.until(lambda: "does not know the key of teacher" in link.trouble)
    assert link._handshakes is not None and link._handshakes._attempt == 0
    assert link.renewed > 0, "the hub proved its former key, which was tried second"


def test_a_key_that_was_retired_is_heard_no_more(ends: Ends, folder: KeyFolder, tmp_path: Path) -> None:
    """Also by a link that was made while it was good: of a machine that did not get the new ones."""
    stale = as_it_is(folder, tmp_path / "stale")
    hub = ends.hub(folder)
    link = ends.link(hub, stale)
    assert ends.heard(hub, link).sender.role == TEACHER
    keys = hub._poller._keys
    assert keys is not None
    known = folder.known()
    folder._write([], [each for each in known if each.role != TEACHER])  # nobody listens anew for that
    ends.until(lambda: keys._live.ring.of_role(TEACHER, time.time()) == [])
    ends.inbox[link].clear()

    def told() -> bool:
        link.send(Ack(seq=3))
        return "the key of teacher was retired" in link.trouble

    ends.inbox[hub].clear()
    ends.until(told)
    ends.until(lambda: "does not know the key of teacher" in link.trouble)  # dialled anew, with the same key
    assert not ends.inbox[hub] and not ends.inbox[link] and hub.garbage > 0


def test_a_key_that_was_retired_before_its_process_looked_again_costs_it_nothing(
    ends: Ends, folder: KeyFolder
) -> None:
    """Its folder has the next one: it connects with that as soon as it has read it."""
    hub = ends.hub(folder)
    link = ends.link(hub, folder)
    former = ends.heard(hub, link).sender.key
    keys = link._poller._keys
    assert keys is not None
    keys._live._look_at = math.inf  # it looks at its folder again when told so
    others = [each for each in folder.known() if each.role != TEACHER]
    folder._write([], others)  # the hub's own key stays, so that connections do

    def told() -> bool:
        link.send(Ack(seq=5))
        return "the key of teacher was retired" in link.trouble

    ends.until(told)
    assert keys.current == former
    pair = new_pair(TEACHER, TEACHER)
    folder._write([pair], [*others, Known(TEACHER, TEACHER, pair.public)])
    keys._live._look_at = 0.0
    assert ends.heard(hub, link).sender.key == pair.public
    assert not ends.inbox[link] and not link.trouble


def test_a_hub_without_keys_cannot_say_that_one_was_retired(ends: Ends) -> None:
    hub = ends.hub(None)
    link = ends.link(hub, None)
    peer = ends.heard(hub, link).sender
    hub.send(peer, KeyRetired())
    ends.until(lambda: link.garbage == 1)
    assert ends.heard(hub, link).sender.route == peer.route


def test_new_keys_without_the_other_ends_role_end_nobody(ends: Ends, folder: KeyFolder) -> None:
    hub = ends.hub(folder)
    link = ends.link(hub, folder)
    ends.heard(hub, link)
    whole = folder.known()
    folder.rotate(keep_s=600)
    folder._write([], [each for each in folder.known() if each.role != COORDINATOR])
    ends.until(lambda: "known.json has no key of a coordinator" in link.trouble)
    folder._write([], [*folder.known(), *(each for each in whole if each.role == COORDINATOR)])
    assert ends.heard(hub, link).sender.role == TEACHER


def test_shared_memory_works_under_keys(ends: Ends, folder: KeyFolder) -> None:
    hub = ends.hub(folder, STUDENT, TEACHER, shared_memory=True)
    link = ends.link(hub, folder, TEACHER, to=STUDENT, shared_memory=True)
    ends.heard(hub, link)

    def paired() -> bool:
        link.send(Ack(seq=4), [b"k" * 200_000])
        return any(pairing.paired for pairing in link._pairings.values())

    ends.until(paired)
    ends.inbox[hub].clear()
    link.send(Ack(seq=5), [b"n" * 200_000])
    ends.until(lambda: any(each.message == Ack(seq=5) for each in ends.inbox[hub]))
    assert bytes(ends.inbox[hub][-1].frames[0]) == b"n" * 200_000


def test_without_keys_a_sender_is_who_it_says_it_is(ends: Ends) -> None:
    hub = ends.hub(None)
    assert ends.heard(hub, ends.link(hub, None)).sender == Sender(b"w", "", "")


def test_nobody_can_be_expected_whose_key_nobody_has(ends: Ends, folder: KeyFolder) -> None:
    hub = ends.hub(folder)
    folder._write([], [each for each in folder.known() if each.role != COORDINATOR])
    with pytest.raises(ConfigError, match=r"known\.json has no key of a coordinator"):
        ends.link(hub, folder)
