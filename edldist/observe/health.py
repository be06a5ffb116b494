"""What a worker or a student node says of itself to the probes of whoever placed it, over HTTP.

::

    /healthz   200 while its loops turn; 503 with the one that does not, and since when
    /readyz    200 while it takes part in its job; 503 with what it waits for
    /drain     asks it to leave, exactly as SIGTERM does; 200 once it has left its job, 202 if that takes
               longer than an answer may

Only a request that carries the header ``X-Edldist: drain`` is taken for a wish to leave: no browser sends one
by accident.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from email.message import Message
from http import HTTPStatus

from edldist.observe.http import REQUEST_S, Answer, HttpServer, Request, refusal

__all__ = ["Health", "probed"]

logger = logging.getLogger(__name__)

DRAIN_HEADER = "X-Edldist"
_TEXT = "text/plain; charset=utf-8"
_STARTING = "it is starting"


class Health:
    """The pages of one process.

    ``turned`` is for the threads of the loops, each for its own; everything else is for any thread.

    Args:
        longest_turn_s: of each loop, after how many seconds without a turn it is stuck.
    """

    def __init__(self, longest_turn_s: Mapping[str, float]) -> None:
        self._longest_turn_s = dict(longest_turn_s)
        self._turned_at: dict[str, float] = {}
        self._waits_for: str | None = _STARTING
        self._left = threading.Event()

    def turned(self, loop: str) -> None:
        """That loop goes round; before its first turn, and after ``left``, nobody expects one."""
        self._turned_at[loop] = time.monotonic()

    def waits_for(self, what: str | None) -> None:
        """What keeps this process from taking part, in words; None while it does."""
        self._waits_for = what

    def left(self) -> None:
        """It has left its job, and is about to end."""
        self._turned_at = {}
        self._waits_for = "it has left its job"
        self._left.set()

    def __call__(self, request: Request) -> Answer:
        path = request.path
        if path == "/healthz":
            return self._health()
        if path == "/readyz":
            waits_for = self._waits_for
            return _ok() if waits_for is None else refusal(HTTPStatus.SERVICE_UNAVAILABLE, waits_for)
        if path == "/drain":
            return self._drain(request.headers)
        return refusal(HTTPStatus.NOT_FOUND, "no such page; there are /healthz, /readyz and /drain")

    def _health(self) -> Answer:
        now = time.monotonic()
        for loop, at in self._turned_at.copy().items():
            if now - at > self._longest_turn_s[loop]:
                reason = f"its {loop} loop has been stuck for {now - at:.1f} s"
                return refusal(HTTPStatus.SERVICE_UNAVAILABLE, reason)
        return _ok()

    def _drain(self, headers: Message) -> Answer:
        if headers.get(DRAIN_HEADER) != "drain":
            return refusal(HTTPStatus.FORBIDDEN, f"a wish to leave carries the header {DRAIN_HEADER}: drain")
        os.kill(os.getpid(), signal.SIGTERM)
        if self._left.wait(0.8 * REQUEST_S):
            return Answer(b"drained", _TEXT)
        return Answer(b"draining", _TEXT, HTTPStatus.ACCEPTED)


def _ok() -> Answer:
    return Answer(b"ok", _TEXT)


@contextlib.contextmanager
def probed(http: str | None, health: Health) -> Iterator[None]:
    """Answer probes meanwhile; at the end, who asked the process to leave hears that it has.

    Args:
        http: ``HOST:PORT`` to listen at, or None for nowhere.

    Raises:
        ConfigError: the address cannot be bound.
    """
    if http is None:
        yield
        return
    with contextlib.closing(HttpServer(http, health)) as server:
        logger.info("probes are answered at %s", server.address)
        try:
            yield
        finally:
            health.left()
