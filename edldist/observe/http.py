"""A small HTTP server for what a process tells of itself to browsers, probes and scripts.

What there is to tell, it asks of a function; it only serves. Whoever connects costs one thread for
``REQUEST_S`` at most, and there are never more than twice ``MAX_CONNECTIONS`` of these.
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
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.client import LineTooLong
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any
from urllib.parse import parse_qsl

from edldist.address import Address, is_ipv6, is_loopback, listening_hosts, parse_place, why_unresolved
from edldist.errors import ConfigError
from edldist.observe.host_header import is_expected

__all__ = ["Answer", "HttpServer", "Request", "refusal"]

logger = logging.getLogger(__name__)

REQUEST_S = 5.0
"""A connection is cut after that, whatever trickles in or out of it."""
MAX_CONNECTIONS = 64
"""When there are more, the oldest is cut: whoever asks in earnest is served within milliseconds."""
MAX_REQUEST_BYTES = 16 << 10
MAX_PARAMETERS = 16
LAST_ANSWERS_S = 1.0
"""Whoever has asked before the end gets an answer, if that takes no longer."""


@dataclass(frozen=True)
class Answer:
    """What a page says, with headers of its own beside those of every answer."""

    body: bytes
    content_type: str = "application/json"
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


def refusal(status: HTTPStatus, reason: str) -> Answer:
    """Why there is nothing to tell."""
    return Answer(json.dumps({"error": reason}).encode(), status=status)


@dataclass(frozen=True)
class Request:
    """What a GET request asks for.

    Attributes:
        path: without the query, as it was sent: nothing in it has been decoded.
        query: as it was sent; pages that take no parameters pass it over.
        headers: names in any case.
    """

    path: str
    query: str = ""
    headers: Message = field(default_factory=Message)

    def parameters(self, *known: str) -> dict[str, str]:
        """The parameters of the query.

        Args:
            known: those that the page takes.

        Raises:
            ValueError: the query is none, or names another one, or one twice; with the reason.
        """
        try:
            pairs = parse_qsl(
                self.query,
                keep_blank_values=True,
                strict_parsing=bool(self.query),
                errors="strict",
                max_num_fields=MAX_PARAMETERS,
            )
        except ValueError as exc:  # a UnicodeDecodeError too
            raise ValueError(f"the query {self.query[:80]!r} is not NAME=VALUE&NAME=VALUE: {exc}") from exc
        for name, _ in pairs:
            if name not in known:
                raise ValueError(f"no parameter {name[:80]!r} here; there are: {', '.join(known) or 'none'}")
        if len(pairs) > len(dict(pairs)):
            raise ValueError(f"a parameter is given twice: {self.query[:80]!r}")
        return dict(pairs)


Pages = Callable[[Request], Answer]
"""Called in any of the server's threads; it may wait for some seconds, and raise nothing."""


class _Request:
    """The lines of one request, as long as they are few."""

    def __init__(self, stream: BufferedIOBase) -> None:
        self._stream = stream
        self._left = MAX_REQUEST_BYTES

    def readline(self, limit: int = -1) -> bytes:
        line = self._stream.readline(self._left + 1)
        self._left -= len(line)
        if self._left < 0:
            raise LineTooLong("request")
        return line

    def close(self) -> None:
        self._stream.close()


_MISNAMED = (
    "{!r} is no name of this server: ask for it by its address, by localhost through a tunnel, or give the "
    "coordinator --http-host NAME"
)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "edldist"
    sys_version = ""
    default_request_version = "HTTP/1.0"  # of a first line that names none: its answer has headers, too

    def setup(self) -> None:
        super().setup()
        self.rfile = _Request(self.rfile)  # type: ignore[assignment]

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except LineTooLong:  # the first line; longer headers are refused where they are parsed
            self.requestline = self.request_version = self.command = ""
            self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)

    def do_GET(self) -> None:
        with self.server.answering():
            if (other := self.server.misnamed(self.headers.get_all("Host", []))) is not None:
                self._send(refusal(HTTPStatus.MISDIRECTED_REQUEST, _MISNAMED.format(other[:80])))
                return
            path, _, query = self.path.partition("?")
            self._send(self.server.pages(Request(path, query, self.headers)))

    do_HEAD = do_GET

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer errors in JSON, and any other method than GET and HEAD with 405."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            code, message = HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are allowed here"
        self.close_connection = True
        self._send(refusal(HTTPStatus(code), message or HTTPStatus(code).phrase))

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        if answer.status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug("%s: %r", self.client_address, format % args)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, pages: Pages, names: Collection[str]) -> None:
        if is_ipv6(host):
            self.address_family = socket.AF_INET6
        self.pages = pages
        self._on_loopback = is_loopback(host)
        self._names = names if self._on_loopback else {*names, socket.gethostname()}
        self._lock = threading.Lock()
        # Invariant: every connection that a thread serves is in one of the two; oldest first.
        self._open: dict[socket.socket, float] = {}  # to when it is to be cut
        self._cut: set[socket.socket] = set()
        self._answering = 0
        self._answered = threading.Condition()
        super().__init__((host, port), _Handler)

    def misnamed(self, hosts: Collection[str]) -> str | None:
        """The name that a request calls this server by, if that is none of its."""
        return next((host for host in hosts if not is_expected(host, self._names, self._on_loopback)), None)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # "::" takes in IPv4 too
        # HTTPServer would look its own name up, which hangs where DNS does.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._open) >= MAX_CONNECTIONS:
                self._cut_off(next(iter(self._open)))
            crowded = len(self._open) + len(self._cut) >= 2 * MAX_CONNECTIONS
            if not crowded:
                self._open[request] = time.monotonic() + REQUEST_S
        if crowded:  # threads that were cut off are still about to notice
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Called several times a second by the thread that accepts."""
        now = time.monotonic()
        with self._lock:
            for request in [request for request, until in self._open.items() if until <= now]:
                self._cut_off(request)

    def _cut_off(self, request: socket.socket) -> None:
        """End what its thread reads or writes, which then ends itself."""
        del self._open[request]
        self._cut.add(request)
        with contextlib.suppress(OSError):  # it was closed by the other side
            request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
            self._cut.discard(request)
        super().shutdown_request(request)

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """While a page is made and sent."""
        with self._answered:
            self._answering += 1
        try:
            yield
        finally:
            with self._answered:
                self._answering -= 1
                self._answered.notify_all()

    def server_close(self) -> None:
        super().server_close()
        with self._answered:
            self._answered.wait_for(lambda: not self._answering, LAST_ANSWERS_S)
        with self._lock:
            for request in list(self._open):
                self._cut_off(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a request of %s broke off", client_address, exc_info=True)


def _listen(place: Address, pages: Pages, names: Collection[str], or_any: bool = False) -> _Server:
    """Listen at the first of the place's addresses that can be bound.

    Args:
        names: of this server, beside that of the place.
        or_any: whether any free port will do where its own is taken.

    Raises:
        OSError: the last one could not be either.
    """
    if or_any:
        try:
            return _listen(place, pages, names)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
            logger.warning("another process listens on %s: status is served on another port", place)
            place = place._replace(port=0)
    names = {*names, place.host}
    *others, last = listening_hosts(place.host)
    for host in others:
        with contextlib.suppress(OSError):
            return _Server(host, place.port, pages, names)
    return _Server(last, place.port, pages, names)


class HttpServer:
    """Serves pages from threads of its own until closed.

    Args:
        address: ``HOST:PORT``; port 0 lets the system choose.
        pages: what there is to tell.
        or_any: whether any free port will do where that one is taken.
        names: by which browsers may call it, beside its address and that of the host (``host_header``).

    Raises:
        ConfigError: the address is malformed or cannot be bound.
    """

    def __init__(self, address: str, pages: Pages, or_any: bool = False, names: Collection[str] = ()) -> None:
        place = parse_place(address, "http address", port_zero=True)
        try:
            self._server = _listen(place, pages, names, or_any)
        except OSError as exc:
            reason = why_unresolved(place.host) or exc.strerror or str(exc)
            advice = " (another process listens there)" if exc.errno == errno.EADDRINUSE else ""
            raise ConfigError(
                f"cannot serve HTTP on {address}: {reason}{advice}. "
                "Choose another address with --http, or port 0 for any free one"
            ) from exc
        self.address = str(Address(place.host, self._server.server_port))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="edldist-http", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Take no more requests, and end those that are under way once they are answered, or soon."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
