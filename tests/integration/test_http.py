"""HTTP of the coordinator: no client holds a thread, and /healthz knows whether the main loop turns."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from edldist.coordinator import server as coordinator_server
from edldist.coordinator.course.history import RunHistory
from edldist.coordinator.pages.board import StatusBoard
from edldist.coordinator.pages.pages import CoordinatorPages
from edldist.observe import http as http_server
from edldist.observe.http import HttpServer
from tests.integration.members import WITHIN_S, Running, until

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def board() -> StatusBoard:
    return StatusBoard(lambda: None, longest_turn_s=60.0)


@pytest.fixture
def server(board: StatusBoard) -> Iterator[HttpServer]:
    running = HttpServer("127.0.0.1:0", CoordinatorPages(board, RunHistory("one", 0.0, 0.0).tell))
    yield running
    running.close()
    until(lambda: not serving(), "the end of all threads")


def serving() -> list[threading.Thread]:
    """Threads that serve a connection."""
    return [thread for thread in threading.enumerate() if "process_request_thread" in thread.name]


def connect(server: HttpServer) -> socket.socket:
    host, port = server.address.split(":")
    return socket.create_connection((host, int(port)), timeout=WITHIN_S)


def get(address: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=WITHIN_S)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()


def rest_of(connection: socket.socket) -> bytes:
    """What comes until the other side ends the connection."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(4096):
            found += chunk
    return found


def test_a_trickle_of_bytes_holds_no_thread_past_the_deadline(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "REQUEST_S", 0.3)
    ended = threading.Event()

    def trickle(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not ended.wait(0.02):  # each byte comes long before any time-out of a single read
                connection.sendall(b"x")

    with connect(server) as slow:
        feeder = threading.Thread(target=trickle, args=(slow,))
        feeder.start()
        try:
            assert rest_of(slow) == b""  # this side did not end it
        finally:
            ended.set()
            feeder.join()
    until(lambda: not serving(), "the end of its thread")


def test_who_does_not_read_the_answer_holds_no_thread_past_the_deadline(
    server: HttpServer, board: StatusBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "REQUEST_S", 0.3)
    board.publish(b"x" * (64 << 20))  # more than sockets hold
    with connect(server) as slow:
        slow.sendall(b"GET /status HTTP/1.0\r\n\r\n")
        until(serving, "its thread")
        until(lambda: not serving(), "the end of its thread")


def test_of_too_many_connections_the_oldest_are_cut(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 4)
    monkeypatch.setattr(http_server, "REQUEST_S", 10 * WITHIN_S)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(connect(server)) for _ in range(4)]
        for oldest in range(8):
            held.append(stack.enter_context(connect(server)))
            assert rest_of(held[oldest]) == b""
            # While many that were cut have not noticed it yet, it is the newest that are refused.
            until(lambda: len(serving()) <= 4, "the end of the thread of the one that was cut")
        assert get(server.address, "/healthz") == (200, b"ok")
        until(lambda: len(serving()) <= 4, "the end of the thread of the one that was cut")
        held[-1].sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert rest_of(held[-1]).endswith(b"ok")


def test_threads_are_bounded_even_if_none_can_be_ended(
    server: HttpServer, board: StatusBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 4)
    monkeypatch.setattr(http_server, "REQUEST_S", 10 * WITHIN_S)
    asked = threading.Semaphore(0)
    go_on = threading.Event()
    monkeypatch.setattr(board, "read", lambda: (asked.release(), go_on.wait(WITHIN_S), b"{}")[2])
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                stack.enter_context(connect(server)).sendall(b"GET /status HTTP/1.0\r\n\r\n")
                assert asked.acquire(timeout=WITHIN_S)
            assert rest_of(stack.enter_context(connect(server))) == b""
            assert len(serving()) == 8
    finally:
        go_on.set()


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET /",
        b"GET / HTTP/1.0\r\na: ",
        b"GET / HTTP/1.0\r\n" + b"".join(b"a%d: b\r\n" % n for n in range(99)),
    ],
    ids=["a long line", "a long header", "many headers"],
)
def test_a_request_of_many_bytes_is_refused(server: HttpServer, beginning: bytes) -> None:
    # Not a byte more than it reads: with some left over, closing would throw the answer away.
    size = http_server.MAX_REQUEST_BYTES + 1
    with connect(server) as connection:
        connection.sendall(beginning.ljust(size, b"x"))
        head = rest_of(connection)
    assert b" 414 " in head or b" 431 " in head


def test_closing_ends_what_is_under_way(board: StatusBoard) -> None:
    running = HttpServer("127.0.0.1:0", CoordinatorPages(board, RunHistory("one", 0.0, 0.0).tell))
    with connect(running) as idle:
        until(serving, "its thread")
        running.close()
        assert rest_of(idle) == b""
    until(lambda: not serving(), "the end of its thread")


def test_health_is_that_of_the_main_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator_server, "LEAST_STUCK_S", 0.5)
    running = Running()
    try:
        address = running.coordinator.http_address
        assert address is not None
        until(lambda: get(address, "/healthz") == (200, b"ok"), "a turn")
        stuck, go_on = threading.Event(), threading.Event()
        tick = running.coordinator._members.tick
        monkeypatch.setattr(
            running.coordinator._members,
            "tick",
            lambda *args: (stuck.set(), go_on.wait(WITHIN_S), tick(*args))[2],
        )
        assert stuck.wait(WITHIN_S)
        code, body = until(lambda: (got := get(address, "/healthz"))[0] == 503 and got, "the news")
        assert "main loop has been stuck for" in json.loads(body)["error"]
        go_on.set()
        until(lambda: get(address, "/healthz") == (200, b"ok"), "recovery")
    finally:
        running.stop()


def test_a_loop_is_stuck_when_it_has_not_turned_for_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    board = StatusBoard(lambda: None, longest_turn_s=3.0)
    now = 103.0
    assert board.stuck_s() is None
    now = 104.0
    assert board.stuck_s() == 4.0
    board.turned()
    assert board.stuck_s() is None


def test_a_name_that_was_made_to_lead_here_gets_nothing(board: StatusBoard) -> None:
    """DNS rebinding: a page of ``evil.example`` asks its own name, which leads here by now."""
    pages = CoordinatorPages(board, RunHistory("one", 0.0, 0.0).tell)
    running = HttpServer("127.0.0.1:0", pages, names=["head.example"])

    def asked(*hosts: str) -> bytes:
        with contextlib.closing(connect(running)) as connection:
            lines = ["GET /history HTTP/1.1", *(f"Host: {host}" for host in hosts), "", ""]
            connection.sendall("\r\n".join(lines).encode())
            return rest_of(connection)

    try:
        for hosts in ([], [running.address], ["localhost"], ["head.example:80"]):
            assert asked(*hosts).startswith(b"HTTP/1.0 200"), hosts
        for hosts in (["evil.example"], ["localhost", "evil.example"], ["evil.example", "127.0.0.1"]):
            answer = asked(*hosts)
            assert answer.startswith(b"HTTP/1.0 421") and b"evil.example" in answer, hosts
            assert b"incarnation" not in answer
    finally:
        running.close()
