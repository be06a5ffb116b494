"""Whatever a browser, or somebody who is none, asks the coordinator for: a clear answer, nothing lost."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from edldist.coordinator.course.history import RunHistory
from edldist.coordinator.pages.board import StatusBoard
from edldist.coordinator.pages.dashboard_files import dashboard
from edldist.coordinator.pages.pages import CoordinatorPages
from edldist.observe.http import MAX_REQUEST_BYTES, HttpServer
from tests.integration.members import WITHIN_S

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def server() -> Iterator[HttpServer]:
    board = StatusBoard(lambda: None, longest_turn_s=600.0)
    running = HttpServer("127.0.0.1:0", CoordinatorPages(board, RunHistory("one", 0.0, 1000.0).tell))
    yield running
    assert exchange(running, b"GET /healthz HTTP/1.0\r\n\r\n")[0] == 200, "it answers, after all of that"
    running.close()


def exchange(server: HttpServer, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer; status 0 of one without a status line (HTTP/0.9)."""
    host, port = server.address.split(":")
    found = b""
    with socket.create_connection((host, int(port)), timeout=WITHIN_S) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        while chunk := connection.recv(1 << 16):
            found += chunk
    head, _, body = found.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    if not first.startswith("HTTP/"):
        return 0, {}, found
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


def ask(server: HttpServer, target: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    return exchange(
        server, f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    )


OUTSIDE = [
    *("/..", "/../", "/../../etc/passwd", "/dashboard/../pages.py", "/dashboard/../../observe/http.py"),
    *("/dashboard/%2e%2e/pages.py", "/dashboard/..%2fpages.py", "/dashboard/%2e%2e%2f%2e%2e%2fetc%2fpasswd"),
    *("/dashboard/..\\\\pages.py", "/dashboard//page.js", "//etc/passwd", "/dashboard/", "/dashboard"),
    *("/dashboard/page.js%00", "/dashboard/page.js/", "/Dashboard/page.js", "/dashboard/__init__.py"),
    *("/dashboard/./page.js", "/index.html", "/favicon.ico", "/%", "/%zz", "/\xff", "/status/", "/history/x"),
    *(
        "*",
        "status",
        "http://here/status",
        "/" + "a" * 8_000,
        "/~",
        "/.git/config",
        "/dashboard%2fpage.js",
    ),
]


@pytest.mark.parametrize("target", OUTSIDE)
def test_no_path_leads_outside_the_pages(server: HttpServer, target: str) -> None:
    status, headers, body = ask(server, target)
    assert (status, headers["Content-Type"]) == (404, "application/json")
    assert json.loads(body)["error"].startswith("no such page; there are / (the dashboard), /status")


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW", "get"]
)
@pytest.mark.parametrize("path", ["/", "/history", "/nowhere"])
def test_nothing_is_changed_by_any_method(server: HttpServer, method: str, path: str) -> None:
    status, headers, body = ask(server, path, method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert json.loads(body) == {"error": "only GET and HEAD are allowed here"}


@pytest.mark.parametrize("path", ["/", "/dashboard/page.js", "/history", "/healthz", "/nowhere"])
def test_a_head_is_the_answer_without_its_body(server: HttpServer, path: str) -> None:
    status, headers, body = ask(server, path)
    alone, same, nothing = ask(server, path, "HEAD")
    assert nothing == b"" and (alone, same["Content-Type"]) == (status, headers["Content-Type"])
    assert same["Content-Length"] == str(len(body))


@pytest.mark.parametrize(
    ("request_bytes", "statuses"),
    [
        (b"GET /" + b"a" * MAX_REQUEST_BYTES + b" HTTP/1.1\r\n\r\n", {414}),
        (b"GET /history?" + b"a" * MAX_REQUEST_BYTES + b" HTTP/1.1\r\n\r\n", {414}),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_REQUEST_BYTES + b"\r\n\r\n", {431}),
        (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 200 + b"\r\n", {431}),
        (b"GET / HTTP/9.9\r\n\r\n", {505}),
        (b"GET / HTTP/x\r\n\r\n", {400}),
        (b"GET\r\n\r\n", {400}),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", {400}),
        (b"GET / / / HTTP/1.1\r\n\r\n", {400}),
        (b"GET /\x00 HTTP/1.1\r\n\r\n", {404}),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\nx", {405}),
        (b"GET /history?since=1e309 HTTP/1.1\r\n\r\n", {400}),
        (b"GET /history?since=\xff HTTP/1.1\r\n\r\n", {400}),
    ],
)
def test_what_is_no_request_hears_so(server: HttpServer, request_bytes: bytes, statuses: set[int]) -> None:
    status, headers, body = exchange(server, request_bytes)
    assert status in statuses and headers["Content-Type"] == "application/json"
    assert json.loads(body)["error"] and len(body) < 1_000


def test_nothing_at_all_gets_nothing(server: HttpServer) -> None:
    assert exchange(server, b"") == (0, {}, b"")


def test_the_page_may_load_and_ask_its_own_coordinator_alone(server: HttpServer) -> None:
    for path, file in dashboard().items():
        status, headers, body = ask(server, path)
        assert (status, body) == (200, file.body)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"
        text = body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text and "innerHTML" not in text
    assert set(dashboard()) >= {"/", "/dashboard/page.js", "/dashboard/style.css", "/dashboard/icon.svg"}


def test_a_query_harms_no_page_that_takes_none(server: HttpServer) -> None:
    for query in ("", "x", "x=1&x=2", "%ff", "&&&", "a" * 4_000):
        assert ask(server, f"/healthz?{query}")[0] == 200
        assert ask(server, f"/?{query}")[0] == 200
