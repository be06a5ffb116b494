"""Requests to one engine: sent again where that may help, for so long, and then it is lost.

What becomes of a request::

    asking --200------------------------------------------------> its content
      |  ^
      |  +-- back-off, for `retries` times -- 408, 429, 500, 502, 503, 504 · no connection · no answer in time
      |                                                    |
      |                         when these are used up, or at once after a time-out: does it say it is well?
      |                              yes: this request has failed, the engine has not
      |                              no, or it is overloaded, or not there: lost
      +-- any other status ------------------------------------> refused, in the engine's words

An engine is lost once, for all requests: those that wait to be sent again end with it, and no further one is
sent. It is the worker's end: its tasks go to others, and whoever starts it again waits for the engine first
(``preflight``). Any thread may ask.
"""

from __future__ import annotations

import threading
from typing import Any

import msgspec

from edldist.errors import EngineLostError, ModelError
from edldist.teacher.engines.address import EngineAddress
from edldist.teacher.engines.connections import Connections, NoAnswerError
from edldist.teacher.engines.settings import EngineSettings

__all__ = ["Client", "RefusedError"]

_PASSING = (408, 429, 500, 502, 503, 504)
_OVERLOADED = (429, 502, 503)
_LONGEST_WAIT_S = 30.0
_HEALTH = "/health"
_HEALTH_S = 5.0
_WORDS = 500


class RefusedError(ModelError):
    """The engine will not answer this request.

    Attributes:
        status: of HTTP.
        words: of the engine.
    """

    def __init__(self, engine: EngineAddress, status: int, words: str) -> None:
        super().__init__(f"{engine} refused a request (HTTP {status}): {words}")
        self.status = status
        self.words = words


class Client:
    """Asks one engine.

    Attributes:
        lost: what ended it, or None.
    """

    def __init__(self, address: EngineAddress, settings: EngineSettings) -> None:
        key = settings.key(address.reference)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        self._connections = Connections(
            address, headers | ({"Authorization": f"Bearer {key}"} if key else {})
        )
        self._settings = settings
        self._ended = threading.Event()
        self.address = address
        self.lost: EngineLostError | None = None

    def get(self, path: str, timeout_s: float) -> tuple[int, bytes]:
        """Ask once.

        Raises:
            NoAnswerError: there is no whole answer.
        """
        return self._connections.exchange("GET", path, None, timeout_s)

    def post(self, path: str, document: Any) -> bytes:
        """Ask, again where that may help.

        Args:
            document: sent as JSON.

        Returns:
            The content of an answer of status 200.

        Raises:
            RefusedError: the engine will not answer it.
            ModelError: the engine is well, and this request has failed each time.
            EngineLostError: it is not there any more.
        """
        body = msgspec.json.encode(document)
        tries = self._settings.retries + 1
        for number in range(1, tries + 1):
            if self.lost is not None:
                raise self.lost
            late = overloaded = False
            status = 0
            try:
                status, content = self._connections.exchange("POST", path, body, self._settings.timeout_s)
            except NoAnswerError as exc:
                why, late = str(exc), exc.late
            else:
                if status == 200:
                    return content
                words = words_of(content)
                if status not in _PASSING:
                    raise RefusedError(self.address, status, words)
                why, overloaded = f"HTTP {status}: {words}", status in _OVERLOADED
            if late and not self._is_well():
                raise self.lose(f"{why} (asked {number} times)")
            if number == tries:
                if (late or status) and not overloaded and self._is_well():
                    raise ModelError(f"{self.address} says it is well, and this request failed: {why}")
                raise self.lose(f"{why} (asked {number} times)")
            self._ended.wait(min(_LONGEST_WAIT_S, self._settings.retry_s * 2 ** (number - 1)))
        raise AssertionError("the last try ends it")

    def lose(self, why: str) -> EngineLostError:
        """The engine is of no use any more. For any thread.

        Returns:
            What to raise.
        """
        if self.lost is None:
            self.lost = EngineLostError(
                f"{self.address} is lost: {why}. Its worker ends, and others get its tasks. Started again, "
                f"it waits for the engine, up to wait_s, {self._settings.wait_s:g} s"
            )
        self._ended.set()
        return self.lost

    def close(self) -> None:
        """End what is under way. For any thread."""
        if self.lost is None:
            self.lost = EngineLostError(f"{self.address} is not asked any more: its worker ends")
        self._ended.set()
        self._connections.close()

    def _is_well(self) -> bool:
        try:
            return self.get(_HEALTH, _HEALTH_S)[0] == 200
        except NoAnswerError:
            return False


def words_of(content: bytes) -> str:
    """What an answer that is an error says."""
    try:
        document = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return content[:_WORDS].decode("utf-8", "replace").strip()
    while isinstance(document, dict):
        inner = next((document[key] for key in ("error", "message", "detail") if key in document), None)
        if inner is None:
            break
        document = inner
    text = document if isinstance(document, str) else msgspec.json.encode(document).decode()
    return text[:_WORDS].strip()
