"""Connections to one HTTP server: kept alive, shared by threads, each exchange within its time."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Mapping

from edldist.teacher.engines.address import EngineAddress

__all__ = ["Connections", "NoAnswerError"]

_MOST_BYTES = 1 << 30
_READ_BYTES = 1 << 20
_HUNG_UP = (http.client.RemoteDisconnected, ConnectionError)


class NoAnswerError(Exception):
    """No whole answer came.

    Attributes:
        late: time was up; else the connection was refused or broke.
    """

    def __init__(self, why: str, *, late: bool) -> None:
        super().__init__(why)
        self.late = late


class Connections:
    """As many connections as there are exchanges at once. For any thread.

    A server closes a connection on which nothing was asked for some seconds. An exchange that finds out is
    begun anew on a fresh one, which is no fault of anybody's.

    Args:
        address: of the server.
        headers: of every request.
    """

    def __init__(self, address: EngineAddress, headers: Mapping[str, str]) -> None:
        self._address = address
        self._headers = dict(headers)
        self._lock = threading.Lock()
        # Invariant: an idle one is open, and no thread has it in its hands.
        self._idle: list[http.client.HTTPConnection] = []
        self._open: set[http.client.HTTPConnection] = set()
        self._closed = False

    def exchange(self, method: str, path: str, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        """Ask, and read the whole answer.

        Returns:
            HTTP status and content.

        Raises:
            NoAnswerError: there is none, whole and in time.
        """
        deadline = time.monotonic() + timeout_s
        with self._lock:
            kept = self._idle.pop() if self._idle else None
        try:
            if kept is not None:
                try:
                    return self._over(kept, method, path, body, deadline)
                except _HUNG_UP:
                    if time.monotonic() >= deadline:
                        raise
            return self._over(self._connect(deadline), method, path, body, deadline)
        except TimeoutError as exc:
            raise NoAnswerError(f"no answer within {timeout_s:g} s", late=True) from exc
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise NoAnswerError(f"{type(exc).__name__}: {exc}", late=False) from exc

    def close(self) -> None:
        """End whatever is under way, with an error in its thread."""
        with self._lock:
            self._closed = True
            for connection in self._open:
                if connection.sock is not None:
                    with contextlib.suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RDWR)
            idle, self._idle = self._idle, []
        for connection in idle:
            self._drop(connection)

    def _connect(self, deadline: float) -> http.client.HTTPConnection:
        make = http.client.HTTPSConnection if self._address.secure else http.client.HTTPConnection
        connection = make(self._address.host, self._address.port, timeout=_left(deadline))
        try:
            connection.connect()
            with self._lock:
                if self._closed:
                    raise ConnectionAbortedError("closed")
                self._open.add(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _over(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        deadline: float,
    ) -> tuple[int, bytes]:
        sock = connection.sock
        try:
            sock.settimeout(_left(deadline))
            connection.request(method, self._address.path + path, body, self._headers)
            sock.settimeout(_left(deadline))
            response = connection.getresponse()
            parts, size = [], 0
            while part := response.read1(_READ_BYTES):
                parts.append(part)
                size += len(part)
                if size > _MOST_BYTES:
                    raise ValueError(f"an answer of more than {_MOST_BYTES >> 20} MiB")
                if not response.isclosed():
                    sock.settimeout(_left(deadline))
            if response.length:  # of what was announced, what is missing
                raise http.client.IncompleteRead(b"", response.length)
            response.close()  # or no other one can follow on the connection
        except BaseException:
            self._drop(connection)
            raise
        with self._lock:
            keep = not response.will_close and not self._closed
            if keep:
                self._idle.append(connection)
        if not keep:
            self._drop(connection)
        return response.status, b"".join(parts)

    def _drop(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("time is up")
    return left
