"""A question is asked until it is answered, and never mistaken for another one."""

from __future__ import annotations

import pytest

from edldist.errors import CoordinatorUnreachableError, RefusedError
from edldist.wire.asking import Asking, no_answer
from edldist.wire.messages import Ack, Message, Refused, StatusQuery
from edldist.wire.traffic import Traffic
from edldist.wire.transport import Outgoing, Received, Sender

FOREVER_S = 60.0


class ScriptedLink:
    """Does what a script says, a line for each wait, and then nothing."""

    garbage = 0
    address = "tcp://one:1"

    def __init__(self, name: str, script: list[str | Message]) -> None:
        self.name = name
        self.script = script
        self.trouble = ""
        self.renewed = 0
        self.full = False
        self.sent: list[Message] = []
        self.inbox: list[Message] = []
        self.closed = False

    def turn(self) -> None:
        match self.script.pop(0) if self.script else "":
            case "renewed":
                self.renewed += 1
            case "full":
                self.full = True
            case "room":
                self.full = False
            case str(trouble):
                self.trouble = trouble
            case message:
                self.inbox.append(message)

    def send(self, message: Message, frames: Outgoing = ()) -> bool:
        if not self.full:
            self.sent.append(message)
        return not self.full

    def receive(self) -> Received | None:
        return Received(Sender(b""), self.inbox.pop(0), []) if self.inbox else None

    def close(self, at_once: bool = False) -> None:
        assert at_once
        self.closed = True


class Scene:
    """A transport whose links follow scripts: the first link the first of them."""

    def __init__(self, *scripts: list[str | Message]) -> None:
        self.scripts = list(scripts)
        self.links: list[ScriptedLink] = []
        self.traffic = Traffic()
        self.asking = Asking("tcp://one:1", "status", self)

    def poller(self) -> Scene:
        return self

    def bind(self, address: str) -> None:
        raise AssertionError("nobody binds to ask")

    def connect(self, address: str, identity: str, to: str = "coordinator") -> ScriptedLink:
        assert identity.startswith("status-") and all(identity != link.name for link in self.links)
        script = self.scripts.pop(0)
        self.links.append(ScriptedLink(identity, script))
        if script[:1] == ["full"]:
            self.links[-1].turn()
        return self.links[-1]

    def wait(self, timeout_s: float) -> None:
        assert 0 < timeout_s <= 0.25, "a link that hears nothing has to be looked after"
        self.links[-1].turn()

    def wake(self) -> None: ...

    def close(self, at_once: bool = False) -> None:
        self.links[-1].closed = True


ONE, TWO = StatusQuery(since=1), StatusQuery(since=2)


def test_a_question_that_a_link_lost_is_asked_again_and_the_next_on_a_link_of_its_own():
    scene = Scene(["it turned this process away", "renewed", "", Ack(seq=1), Ack(seq=1)], [Ack(seq=2)])
    assert scene.asking.ask(ONE, Ack, FOREVER_S) == Ack(seq=1)
    first = scene.links[0]
    assert first.sent == [ONE, ONE] and not first.closed
    # Both may have been answered.
    assert scene.asking.ask(TWO, Ack, FOREVER_S) == Ack(seq=2)
    assert first.closed and first.sent == [ONE, ONE] and scene.links[1].sent == [TWO]


def test_a_question_is_asked_once_where_nothing_was_lost():
    scene = Scene(["", Refused(reason="no"), Ack(seq=1), Ack(seq=2)])
    with pytest.raises(RefusedError, match="coordinator tcp://one:1: no"):
        scene.asking.ask(ONE, Ack, FOREVER_S)
    assert scene.asking.ask(ONE, Ack, FOREVER_S) == Ack(seq=1)
    assert scene.asking.ask(TWO, Ack, FOREVER_S) == Ack(seq=2)
    assert [link.sent for link in scene.links] == [[ONE, ONE, TWO]]


def test_a_question_that_a_link_does_not_take_yet_is_offered_again():
    """One by an address file that nobody has written yet takes nothing."""
    scene = Scene(["full", "", "room", Ack(seq=1)])
    assert scene.asking.ask(ONE, Ack, FOREVER_S) == Ack(seq=1)
    assert scene.links[0].sent == [ONE]


def test_whoever_gave_up_says_why_and_hears_no_late_answer():
    scene = Scene(["it turned this process away", "renewed", ""], [Ack(seq=2)])
    with pytest.raises(CoordinatorUnreachableError, match="within 0.05 s: it turned this process away"):
        scene.asking.ask(ONE, Ack, 0.05)
    assert scene.asking.ask(TWO, Ack, FOREVER_S) == Ack(seq=2)
    assert scene.links[0].closed


def test_what_comes_besides_is_handed_out_in_its_order():
    scene = Scene([Ack(seq=1), Ack(seq=2)])
    assert [received.message for received in scene.asking.receive(0.1)] == [Ack(seq=1)]
    scene.asking.close()
    assert scene.links[0].closed


def test_who_has_no_keys_is_told_that_the_job_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coordinator with keys answers nobody without: as if nobody were there."""
    monkeypatch.delenv("EDLDIST_KEYS", raising=False)
    assert "If its job has keys, give --keys DIR, too" in str(no_answer("tcp://h:1", 2.0, ""))
    assert str(no_answer("tcp://h:1", 2.0, "it is odd")).endswith("within 2 s: it is odd")
    monkeypatch.setenv("EDLDIST_KEYS", "keys")
    assert "--keys" not in str(no_answer("tcp://h:1", 2.0, ""))
