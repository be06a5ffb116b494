"""A service is a ``turn(now)`` that somebody calls: a thread of its own, or a scheduler on a simulated clock.

A turn reads what has come, acts on it, sends what follows, and never waits. It says when it wants to be
called next; a message that comes before, or a ``wake`` of its poller, is a reason to call it earlier.
"""

from __future__ import annotations

import logging
import threading
import traceback
from typing import Protocol

from edldist.clock import Clock
from edldist.errors import EdlDistError
from edldist.wire.transport import Poller

__all__ = ["Service", "ServiceThread"]

logger = logging.getLogger(__name__)


class Service(Protocol):
    """What is driven from outside. It makes no thread and reads no clock but the one that it was given."""

    def turn(self, now: float) -> float:
        """Read, act and send, once.

        Args:
            now: monotonic seconds.

        Returns:
            Monotonic seconds at which it wants its next turn at the latest.
        """
        ...

    def leave(self) -> None:
        """The last turn, of a service that ends as it should: say goodbye."""
        ...

    def fail(self, error: BaseException) -> None:
        """A turn raised: there will be no other."""
        ...


class ServiceThread:
    """Calls a service's turns whenever one is due or its poller has something, until it is closed.

    Args:
        name: of the thread.
        service: whose turns they are.
        poller: with everything that the service reads from; closed at the end.
        clock: the time that the turns are told.
    """

    def __init__(self, name: str, service: Service, poller: Poller, clock: Clock) -> None:
        self._service = service
        self._poller = poller
        self._clock = clock
        self._name = name
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin. From now on the poller and the turns belong to the thread."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let the service leave and end the thread; where it never began, in the thread that calls this."""
        self._closing = True
        if self._thread is None:
            self._run()
        else:
            self._poller.wake()
            self._thread.join()

    def _run(self) -> None:
        try:
            due = 0.0
            while not self._closing:
                self._poller.wait(max(0.0, due - self._clock.monotonic()))
                due = self._service.turn(self._clock.monotonic())
            self._service.leave()
        except BaseException as exc:
            if not isinstance(exc, EdlDistError):
                logger.error("%s failed:\n%s", self._name, traceback.format_exc())
            self._service.fail(exc)
        finally:
            self._poller.close()
