"""Asking a coordinator for its status, over either transport."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from edldist.errors import (
    ConfigError,
    CoordinatorUnreachableError,
    PeerUnreachableError,
    ProtocolVersionError,
    RefusedError,
)
from edldist.keys.folder import KeyFolder
from edldist.keys.pair import COORDINATOR, OPERATOR
from edldist.wire.memory import MemoryTransport
from edldist.wire.messages import MAGIC, PROTOCOL_VERSION, Event, Message, Refused, Status, StatusQuery
from edldist.wire.query import StatusClient, query_status
from edldist.wire.transport import Hub, Transport
from edldist.wire.zmq.keys import socket_keys
from edldist.wire.zmq.transport import ZmqTransport

ANYWHERE = "tcp://127.0.0.1:0"


def _status(since: int, seq: int = 10) -> Status:
    records = [Event(event=f"event-{number}", t=0.0) for number in range(since + 1, seq + 1)]
    return Status(incarnation="one", uptime_s=1.0, members=[], records=records, seq=seq)


class Answering:
    """A coordinator of one answer, in a thread of its own."""

    def __init__(
        self, transport: Transport, answer: Callable[[StatusQuery], Message], address: str = ANYWHERE
    ) -> None:
        self._poller = transport.poller()
        self._hub: Hub = self._poller.bind(address)
        self.address = self._hub.address
        self.asked: list[int] = []
        self._answer = answer
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._poller.wait(0.5)
            while (received := self._hub.receive()) is not None:
                assert isinstance(received.message, StatusQuery)
                self.asked.append(received.message.since)
                with contextlib.suppress(PeerUnreachableError):  # who asked may have given up
                    self._hub.send(received.sender, self._answer(received.message))
        self._poller.close()

    def close(self) -> None:
        self._stop.set()
        self._poller.wake()
        self._thread.join()


@pytest.fixture(params=[MemoryTransport, ZmqTransport])
def transport(request: pytest.FixtureRequest) -> Transport:
    return request.param()


@contextlib.contextmanager
def _client(address: str, transport: Transport) -> Iterator[StatusClient]:
    client = StatusClient(address, transport)
    try:
        yield client
    finally:
        client.close()


def test_questions_are_answered_with_what_follows(transport: Transport) -> None:
    coordinator = Answering(transport, lambda query: _status(query.since))
    try:
        with _client(coordinator.address, transport) as client:
            first = client.query()
            assert len(first.records) == 10
            assert client.query(since=8).records == _status(8).records
            assert coordinator.asked == [0, 8]
    finally:
        coordinator.close()


def test_one_question_needs_no_client() -> None:
    coordinator = Answering(ZmqTransport(), lambda query: _status(query.since))
    try:
        assert query_status(coordinator.address, since=9).seq == 10
    finally:
        coordinator.close()


def test_nobody_there_is_said_within_the_time_given(transport: Transport) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        with _client(address, transport) as client:
            began = time.monotonic()
            with pytest.raises(CoordinatorUnreachableError, match=f"{address} within 0.2 s"):
                client.query(timeout_s=0.2)
            assert 0.2 <= time.monotonic() - began < 2


def test_answers_to_questions_that_were_given_up_are_not_taken_for_new_ones(transport: Transport) -> None:
    """Else the records between would be counted twice."""
    poller = transport.poller()
    hub = poller.bind(ANYWHERE)
    address = hub.address
    hub.close()
    with _client(address, transport) as client:
        for _ in range(3):
            with pytest.raises(CoordinatorUnreachableError):
                client.query(since=0, timeout_s=0.05)
        coordinator = Answering(transport, lambda query: _status(query.since), address)
        try:
            for since in (4, 6, 8):
                assert client.query(since, timeout_s=10).records == _status(since).records
        finally:
            coordinator.close()
            poller.close()


def test_a_client_survives_a_restart_of_the_coordinator(transport: Transport) -> None:
    coordinator = Answering(transport, lambda query: _status(query.since, seq=3))
    with _client(coordinator.address, transport) as client:
        assert client.query(timeout_s=10).seq == 3
        coordinator.close()
        with pytest.raises(CoordinatorUnreachableError):
            client.query(timeout_s=0.1)
        coordinator = Answering(transport, lambda query: _status(query.since, seq=5), coordinator.address)
        try:
            assert client.query(timeout_s=10).seq == 5
        finally:
            coordinator.close()


def test_a_refusal_is_raised_with_its_reason(transport: Transport) -> None:
    coordinator = Answering(transport, lambda query: Refused(reason="not you"))
    try:
        with (
            _client(coordinator.address, transport) as client,
            pytest.raises(RefusedError, match="not you"),
        ):
            client.query()
    finally:
        coordinator.close()


def test_a_coordinator_of_another_version_is_named() -> None:
    poller = ZmqTransport().poller()
    hub = poller.bind(ANYWHERE)
    done = threading.Event()

    def answer() -> None:
        while not done.is_set():
            poller.wait(0.05)
            if (received := hub.receive()) is not None:
                hub._socket.send_multipart(
                    [received.sender.route, MAGIC + bytes([PROTOCOL_VERSION + 1]) + b"x"]
                )

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with pytest.raises(ProtocolVersionError, match=f"protocol {PROTOCOL_VERSION + 1}"):
            query_status(hub.address)
    finally:
        done.set()
        thread.join()
        poller.close()


@pytest.mark.parametrize("address", ["localhost:7070", "tcp://h:0", "http://h:1"])
def test_a_wrong_address_is_a_configuration_error(address: str) -> None:
    with pytest.raises(ConfigError, match="coordinator.*tcp://HOST:PORT"):
        StatusClient(address)


def test_a_client_of_a_coordinator_that_is_gone_is_closed_at_once() -> None:
    """Its question has not left, and nobody waits for the answer any more."""
    with socket.socket() as held:  # bound, and nobody listens
        held.bind(("127.0.0.1", 0))
        client = StatusClient(f"tcp://127.0.0.1:{held.getsockname()[1]}")
        with pytest.raises(CoordinatorUnreachableError):
            client.query(timeout_s=0.1)
        began = time.monotonic()
        client.close()
    assert time.monotonic() - began < 1.0  # libzmq would linger for 2 s


@pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE")
def test_a_question_right_after_a_rotation_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks has its newest key at once, and the coordinator knows that a moment later."""
    folder = KeyFolder(tmp_path / "keys")
    folder.make()
    monkeypatch.setenv("EDLDIST_KEYS", os.fspath(folder.path))
    transport = ZmqTransport(keys=socket_keys(COORDINATOR, OPERATOR))
    coordinator = Answering(transport, lambda query: _status(query.since))
    try:
        folder.rotate(keep_s=600)
        with contextlib.closing(StatusClient(coordinator.address)) as client:
            assert client.query(7, timeout_s=20).seq == 10
            assert client._asking._link.renewed > 0, "it was turned away first"
            assert client.query(8, timeout_s=20).seq == 10
    finally:
        coordinator.close()
