"""A real coordinator's addresses: garbage, HTTP, taken ports, wrong options, and a life after kill -9."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zmq

from edldist.address import parse_address
from edldist.coordinator.options import CoordinatorOptions
from edldist.coordinator.server import Coordinator
from edldist.errors import ConfigError
from edldist.wire.messages import (
    PROTOCOL,
    Ack,
    Goodbye,
    Registered,
    Status,
    StatusQuery,
    Unknown,
    decode,
    encode,
)
from edldist.wire.query import query_status
from edldist.wire.zmq.transport import ZmqTransport
from edldist_launch.cli.roles.coordinator import coordinator as coordinator_command
from edldist_launch.node.student import run_student
from tests.integration.members import INTERVAL_S, TTL_S, WITHIN_S, Running, teacher, until

pytestmark = pytest.mark.timeout(240)


def get(coordinator: Coordinator, path: str, method: str = "GET") -> tuple[int, bytes]:
    assert coordinator.http_address is not None
    connection = http.client.HTTPConnection(coordinator.http_address, timeout=WITHIN_S)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_garbage_on_the_port_harms_nobody(stack: contextlib.ExitStack, running: Running) -> None:
    worker = teacher(stack, running.address)
    worker.register()
    worker.expect(Registered)
    host, port = running.address.removeprefix("tcp://").split(":")
    for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, os.urandom(4096), b""):
        with socket.create_connection((host, int(port))) as raw, contextlib.suppress(OSError):
            raw.sendall(junk)
    context = zmq.Context()
    stack.callback(context.term)
    dealer = context.socket(zmq.DEALER)
    stack.callback(dealer.close, 0)
    dealer.connect(running.address)
    for frames in (
        [b""],
        [b"junk"],
        [b"ED\x01\xc1"],
        [b"ED\x09x"],
        [b"", b"", b"ED"],
        [os.urandom(9999)] * 3,
    ):
        dealer.send_multipart(frames)
    # A valid header that no member sends, then a question: even this peer is answered.
    dealer.send(encode(Unknown()))
    dealer.send(encode(StatusQuery()))

    def garbage() -> int:
        worker.beat()
        count: int = json.loads(get(running.coordinator, "/status")[1])["garbage"]
        return count if count >= 6 else 0

    # The six above, and what random bytes happen to look like in older versions of ZeroMQ's protocol.
    assert until(garbage, "the count of garbage") >= 6
    assert dealer.poll(WITHIN_S * 1e3)
    while (answer := dealer.recv()) == PROTOCOL.preface:  # for the two that speak of another protocol
        assert dealer.poll(WITHIN_S * 1e3)
    assert isinstance(decode(answer), Status)
    worker.beat()
    assert "t1" in {m.id for m in query_status(running.address).members}


def test_http_shows_the_state_and_refuses_everything_else(
    stack: contextlib.ExitStack, running: Running
) -> None:
    worker = teacher(stack, running.address)
    worker.register()
    worker.expect(Registered)
    worker.beat(rate=float("nan"))  # what no reader could add up is dropped
    worker.beat(rate=0.5)
    worker.expect(Ack, beat=False)
    assert get(running.coordinator, "/healthz") == (200, b"ok")
    code, body = get(running.coordinator, "/status?x=1")
    page = json.loads(body)
    assert code == 200 and page["incarnation"] == running.coordinator.incarnation
    assert page["counts"] == {"teachers": 1, "students": 0} and page["garbage"] == 1
    assert [(m["id"], m["stats"]) for m in page["members"]] == [
        ("t1", {"rate": 0.5})
    ] and "records" not in page
    code, body = get(running.coordinator, "/nowhere")
    assert code == 404 and "/status" in json.loads(body)["error"]
    assert get(running.coordinator, "/status", "HEAD") == (200, b"")
    for method in ("POST", "DELETE", "BREW"):
        assert get(running.coordinator, "/status", method)[0] == 405


def test_http_survives_garbage_without_a_word(running: Running, capfd: pytest.CaptureFixture[str]) -> None:
    assert running.coordinator.http_address is not None
    host, port = running.coordinator.http_address.split(":")
    for junk in (
        b"\x00\xff\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"x" * 70_000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"",
    ):
        with socket.create_connection((host, int(port))) as raw, contextlib.suppress(OSError):
            raw.sendall(junk)
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(4096):
                pass
    assert get(running.coordinator, "/healthz") == (200, b"ok")
    assert capfd.readouterr().err == ""


def test_a_taken_address_is_refused_with_its_holder(running: Running) -> None:
    taken = Coordinator(CoordinatorOptions(bind=running.address, http=None), ZmqTransport())
    with pytest.raises(ConfigError, match=rf"{running.address}.*pid {os.getpid()}"):
        taken.run()
    taken_http = CoordinatorOptions(bind="tcp://127.0.0.1:0", http=running.coordinator.http_address)
    with pytest.raises(ConfigError, match="--http"):
        Coordinator(taken_http, ZmqTransport()).run()


def test_a_second_coordinator_of_a_host_serves_its_status_elsewhere_unless_told_where(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken = str(running.coordinator.http_address)
    ran: list[CoordinatorOptions] = []
    monkeypatch.setattr(
        "edldist.coordinator.running.run_coordinator", lambda options: ran.append(options) or 0
    )
    monkeypatch.setattr(CoordinatorOptions, "http", taken)  # what is usual, here
    # It installs logging.
    monkeypatch.setattr("edldist_launch.cli.roles.coordinator.begin", lambda prefix: None)
    for told in ((), ("--http", taken)):
        coordinator_command(["--bind", "tcp://127.0.0.1:0", *told], standalone_mode=False)
    unsaid, said = (Coordinator(options, ZmqTransport()) for options in ran)
    unsaid.open()
    try:
        assert get(unsaid, "/nothing")[0] == 404
        assert unsaid.http_address != taken
        assert f"another process listens on {taken}: status is served on another port" in caplog.text
    finally:
        unsaid.close()
    with pytest.raises(ConfigError, match="another process listens there"):
        said.open()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"bind": "nonsense"}, "nonsense"),
        ({"bind": "tcp://127.0.0.1:0", "http": "7071"}, "HOST:PORT"),
        ({"bind": "tcp://127.0.0.1:0", "http": "127.0.0.1:99999"}, "HOST:PORT"),
        ({"heartbeat_interval_s": 0.0}, "heartbeat_interval_s"),
        ({"heartbeat_ttl_s": 1.5}, "two intervals"),
        ({"max_students_per_worker": 0}, "max_students_per_worker"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        Coordinator(CoordinatorOptions(**options), ZmqTransport()).run()


@pytest.mark.parametrize("port", [0, 1, 65_535, 65_536])
def test_every_port_at_the_border_is_bound_or_refused_with_its_value(port: int) -> None:
    bind = f"tcp://127.0.0.1:{port}"
    coordinator = Coordinator(CoordinatorOptions(bind=bind, http=None), ZmqTransport())
    try:
        coordinator.open()
    except ConfigError as exc:
        assert port in (1, 65_535, 65_536) and bind in str(exc)  # not for everybody, taken, or none at all
        return
    try:
        assert port < 65_536 and coordinator.address.startswith("tcp://127.0.0.1:")
        coordinator.turn(0.0)
    finally:
        coordinator.close()


@pytest.mark.usefixtures("open_link")
def test_one_that_listens_everywhere_says_in_its_address_file_where_that_is(tmp_path: Path) -> None:
    file = tmp_path / "coordinator.json"
    options = CoordinatorOptions(bind="tcp://*:0", http=None, address_file=str(file))
    silent = Coordinator(options, ZmqTransport())
    with pytest.raises(ConfigError, match="says to nobody where.*--advertise"):
        silent.open()
    assert not file.exists()
    for host, bind in (("node-7", "tcp://*:0"), ("fd00::5", "tcp://*:0"), ("node-7", "tcp://127.0.0.1:0")):
        coordinator = Coordinator(replace(options, bind=bind, advertise=host), ZmqTransport())
        coordinator.open()
        try:
            told = parse_address(json.loads(file.read_text())["address"], "test")
            assert told.port == parse_address(coordinator.address, "test").port
            assert told.host == (host if "*" in bind else "127.0.0.1")
        finally:
            coordinator.close()


@pytest.mark.parametrize("port", [0, 65_536])
def test_a_port_that_is_none_is_refused_of_a_node_too(port: int, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.touch()
    with pytest.raises(ConfigError, match=f"127.0.0.1:{port}"):
        run_student(f"tcp://127.0.0.1:{port}", str(script), [], nnodes="1:2", connect_timeout_s=1)


def spawn(bind: str, ready: Path) -> subprocess.Popen[str]:
    code = (
        "import sys; from edldist.coordinator.options import CoordinatorOptions\n"
        "from edldist.coordinator.running import run_coordinator\n"
        f"options = CoordinatorOptions(bind={bind!r}, http='127.0.0.1:0', address_file={str(ready)!r},\n"
        f"    heartbeat_interval_s={INTERVAL_S}, heartbeat_ttl_s={TTL_S})\n"
        "sys.exit(run_coordinator(options) or ('torch' in sys.modules and 3))"
    )
    return subprocess.Popen([sys.executable, "-W", "error", "-c", code], stderr=subprocess.PIPE, text=True)


def test_a_killed_coordinator_process_comes_back_on_its_address(
    stack: contextlib.ExitStack, tmp_path: Path
) -> None:
    ready = tmp_path / "ready.json"

    def started(process: subprocess.Popen[str]) -> dict[str, Any] | None:
        assert process.poll() is None, process.communicate()[1]
        said = json.loads(ready.read_text()) if ready.exists() else {}
        return said if said.get("pid") == process.pid else None

    with spawn("tcp://127.0.0.1:0", ready) as first:
        stack.callback(first.kill)
        said = until(lambda: started(first), "the first life")
        worker = teacher(stack, said["address"])
        worker.register()
        assert worker.expect(Registered).incarnation == said["incarnation"]
        first.kill()
    with spawn(said["address"], ready) as second:
        stack.callback(second.kill)
        again = until(lambda: started(second), "the second life")
        assert again["address"] == said["address"] and again["incarnation"] != said["incarnation"]
        worker.expect(Unknown)
        worker.register()
        assert worker.expect(Registered).incarnation == again["incarnation"]
        worker.send(Goodbye(id="t1", reason="done"))  # else it is waited for, and lost
        second.send_signal(signal.SIGTERM)
        assert second.communicate(timeout=WITHIN_S)[1] == ""
        assert second.returncode == 143  # asked to stop; 3 would say that it imported torch
