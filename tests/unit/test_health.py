"""What a process tells the probes of whoever placed it."""

from __future__ import annotations

import json
import signal
import threading
import time
from email.message import Message
from http import HTTPStatus

import pytest

from edldist.observe.health import Health
from edldist.observe.http import Answer, Request


def asked(health: Health, path: str, **headers: str) -> Answer:
    message = Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return health(Request(path, headers=message))


def why(answer: Answer) -> str:
    assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE
    reason: str = json.loads(answer.body)["error"]
    return reason


def test_a_loop_is_stuck_when_it_has_not_turned_for_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    health = Health({"labelling": 600.0, "I/O": 10.0})
    now = 5000.0  # it loads a model: no loop has begun
    assert asked(health, "/healthz").status == HTTPStatus.OK
    health.turned("labelling")
    health.turned("I/O")
    now = 5010.0
    assert asked(health, "/healthz").status == HTTPStatus.OK
    now = 5010.5
    assert why(asked(health, "/healthz")) == "its I/O loop has been stuck for 10.5 s"
    health.turned("I/O")
    assert asked(health, "/healthz").status == HTTPStatus.OK
    now = 5601.0
    health.turned("I/O")
    assert why(asked(health, "/healthz")) == "its labelling loop has been stuck for 601.0 s"
    health.left()
    assert asked(health, "/healthz").status == HTTPStatus.OK


def test_it_is_ready_while_it_waits_for_nothing() -> None:
    health = Health({})
    assert why(asked(health, "/readyz")) == "it is starting"
    health.waits_for(None)
    assert asked(health, "/readyz").status == HTTPStatus.OK
    health.waits_for("a coordinator")
    assert why(asked(health, "/readyz")) == "a coordinator"
    health.waits_for(None)
    health.left()
    assert why(asked(health, "/readyz")) == "it has left its job"


def test_a_wish_to_leave_is_a_sigterm_and_is_answered_when_it_was_granted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    health, told = Health({}), threading.Event()
    sent: list[int] = []
    monkeypatch.setattr(
        "edldist.observe.health.os.kill", lambda pid, number: (sent.append(number), told.set())
    )
    assert asked(health, "/drain").status == HTTPStatus.FORBIDDEN
    assert asked(health, "/drain", X_Edldist="yes").status == HTTPStatus.FORBIDDEN
    assert not sent
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(asked(health, "/drain", X_Edldist="drain")))
    asking.start()
    assert told.wait(10) and not answers
    health.left()
    asking.join()
    assert sent == [signal.SIGTERM] and [answer.body for answer in answers] == [b"drained"]


def test_who_asks_it_to_leave_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edldist.observe.health.REQUEST_S", 0.01)
    monkeypatch.setattr("edldist.observe.health.os.kill", lambda pid, number: None)
    assert asked(Health({}), "/drain", X_Edldist="drain").status == HTTPStatus.ACCEPTED


def test_other_pages_are_refused_with_those_that_there_are() -> None:
    answer = asked(Health({}), "/status")
    assert answer.status == HTTPStatus.NOT_FOUND and b"/healthz, /readyz and /drain" in answer.body
