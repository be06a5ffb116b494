"""The coordinator's state over HTTP, for browsers, probes and scripts; read-only.

``StatusBoard`` hands a snapshot from the thread that owns the state to the threads that answer;
nothing else is shared between them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edldist.address import Address, is_ipv6, listening_hosts, parse_place
from edldist.errors import ConfigError

__all__ = ["HttpServer", "StatusBoard"]

logger = logging.getLogger(__name__)

MAX_AGE_S = 0.25
ANSWER_WITHIN_S = 2.0
CLIENT_TIMEOUT_S = 5.0


class StatusBoard:
    """The latest snapshot as JSON bytes, made only while someone asks.

    ``read`` is for any thread; ``wanted`` and ``publish`` belong to the owner of the state, which
    looks at ``wanted`` once per turn of its loop.

    Args:
        wake: ends the owner's wait; safe from any thread.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._changed = threading.Condition()
        self._body = b""
        self._published = 0
        self._published_at = float("-inf")
        self.wanted = False

    def publish(self, body: bytes) -> None:
        with self._changed:
            self.wanted = False
            self._body = body
            self._published += 1
            self._published_at = time.monotonic()
            self._changed.notify_all()

    def read(self) -> bytes | None:
        """A snapshot at most ``MAX_AGE_S`` old, or None when the owner makes none in time."""
        with self._changed:
            if time.monotonic() - self._published_at <= MAX_AGE_S:
                return self._body
            seen = self._published
            self.wanted = True
        self._wake()
        with self._changed:
            fresh = self._changed.wait_for(lambda: self._published > seen, ANSWER_WITHIN_S)
            return self._body if fresh else None


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "edldist"
    sys_version = ""
    timeout = CLIENT_TIMEOUT_S

    def do_GET(self) -> None:
        path = self.path.split("?", 1)[0]
        if path == "/healthz":
            self._answer(HTTPStatus.OK, b"ok", "text/plain; charset=utf-8")
        elif path == "/status":
            body = self.server.board.read()
            if body is None:
                self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "the coordinator is busy; ask again")
            else:
                self._answer(HTTPStatus.OK, body)
        else:
            self.send_error(HTTPStatus.NOT_FOUND, "no such page; there are /status and /healthz")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer errors in JSON, and any other method than GET with 405."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            code, message = HTTPStatus.METHOD_NOT_ALLOWED, "only GET is allowed here"
        self.close_connection = True
        self._answer(code, json.dumps({"error": message or HTTPStatus(code).phrase}).encode())

    def _answer(self, code: int, body: bytes, content_type: str = "application/json") -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug("%s: %r", self.client_address, format % args)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, board: StatusBoard) -> None:
        if is_ipv6(host):
            self.address_family = socket.AF_INET6
        self.board = board
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # "::" takes in IPv4 too
        # HTTPServer would look its own name up, which hangs where DNS does.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a request of %s broke off", client_address, exc_info=True)


def _listen(place: Address, board: StatusBoard) -> _Server:
    """Listen at the first of the place's addresses that can be bound.

    Raises:
        OSError: the last one could not be either.
    """
    *others, last = listening_hosts(place.host)
    for host in others:
        with contextlib.suppress(OSError):
            return _Server(host, place.port, board)
    return _Server(last, place.port, board)


class HttpServer:
    """Serves ``GET /status`` and ``GET /healthz`` from a thread of its own until closed.

    Args:
        address: ``HOST:PORT``; port 0 lets the system choose.
        board: where the snapshots come from.

    Raises:
        ConfigError: the address is malformed or cannot be bound.
    """

    def __init__(self, address: str, board: StatusBoard) -> None:
        place = parse_place(address, "http address", port_zero=True)
        try:
            self._server = _listen(place, board)
        except OSError as exc:
            advice = "another process listens there" if exc.errno == errno.EADDRINUSE else "check the host"
            raise ConfigError(
                f"cannot serve HTTP on {address}: {exc.strerror or exc} ({advice}). "
                "Choose another address with --http, or port 0 for any free one"
            ) from exc
        self.address = str(Address(place.host, self._server.server_port))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="edldist-http", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
