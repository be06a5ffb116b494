"""Keeps a student node reported to the coordinator, and the coordinator's latest answer at hand.

A report says everything, so one that is lost costs nothing but the time until the next: it is repeated every
second, faster until it is answered, and a coordinator that was started anew learns all of it from that. Its
answers come whenever something changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from edldist.clock import Clock, SystemClock
from edldist.errors import CoordinatorUnreachableError
from edldist.keys.pair import STUDENT
from edldist.wire.messages import NodeReport, Refused, RunView
from edldist.wire.transport import Transport, closed_on_error
from edldist.wire.turns import ServiceThread
from edldist.wire.zmq.keys import socket_keys
from edldist.wire.zmq.transport import CONTROL_FRAME_BYTES, ZmqTransport

__all__ = ["Attendance"]

KEEP_ALIVE_S = 1.0
_REPEAT_S = 0.25
_POLL_S = 0.02


class Attendance:
    """One node's reports and their answers.

    ``tell`` and the properties are for one thread, the agent's main one; another sends and receives. They
    share no lock, only values that are replaced whole, since torch's agents raise out of signal handlers,
    wherever their main thread is.

    Args:
        coordinator: ``tcp://host:port``, or ``file:PATH`` (``address_file``).
        report: the first one.
        transport, clock: the wire and the time.
        heard: called by the thread that receives, behind each word of the coordinator, and at its own end by
            an error. It must not raise.
    """

    def __init__(
        self,
        coordinator: str,
        report: NodeReport,
        transport: Transport | None = None,
        clock: Clock | None = None,
        heard: Callable[[], None] = lambda: None,
    ) -> None:
        self.report = report
        self.view: RunView | None = None
        """The coordinator's last word about this node's run."""
        self.error: BaseException | None = None
        self._coordinator = coordinator
        self._clock = clock or SystemClock()
        self._heard = heard
        self._heard_at = self._clock.monotonic()
        self._sent_seq = -1
        self._next_at = self._heard_at
        transport = transport or ZmqTransport(CONTROL_FRAME_BYTES, tensors=False, keys=socket_keys(STUDENT))
        with closed_on_error(transport.poller()) as self._poller:
            self._link = self._poller.connect(coordinator, f"node-{report.node.process}")
            self._thread = ServiceThread("edldist-attendance", self, self._poller, self._clock)

    def start(self) -> None:
        """Begin to report."""
        self._thread.start()

    def tell(self, **changes: Any) -> None:
        """Change the report, and send it at once."""
        self.report = msgspec.structs.replace(self.report, seq=self.report.seq + 1, **changes)
        self._poller.wake()

    @property
    def answer(self) -> RunView | None:
        """The coordinator's last word, if it has seen the present report."""
        view = self.view
        return view if view is not None and view.seq >= self.report.seq else None

    @property
    def silent_s(self) -> float:
        """Seconds since the coordinator was last heard."""
        return self._clock.monotonic() - self._heard_at

    def wait(self, check: Callable[[RunView], bool], timeout_s: float) -> RunView | None:
        """Wait until an answer to the present report passes a check; None when time is up first.

        Raises:
            BaseException: what ended the thread that reports.
        """
        deadline = self._clock.monotonic() + timeout_s
        while True:
            answer = self.answer
            if answer is not None and check(answer):
                return answer
            if self.error is not None:
                raise self.error
            if self._clock.monotonic() >= deadline:
                return None
            time.sleep(_POLL_S)

    def close(self) -> None:
        """End the thread."""
        self._thread.close()

    # --- the thread's side ----------------------------------------------------------------------

    def turn(self, now: float) -> float:
        while (received := self._link.receive()) is not None:
            message = received.message
            if isinstance(message, RunView) and message.run == self.report.run:
                self.view = message
                self._heard_at = now
                self._heard()
            elif isinstance(message, Refused):
                raise CoordinatorUnreachableError(
                    f"the coordinator at {self._coordinator} refuses this node: {message.reason}"
                )
        report = self.report
        if report.seq != self._sent_seq or now >= self._next_at:
            self._link.send(report)
            self._sent_seq = report.seq
            # One that was never answered is repeated slowly: it would only wait in a queue.
            answered = self.view is not None and self.view.seq >= report.seq
            silent = now - self._heard_at > 2 * KEEP_ALIVE_S
            self._next_at = now + (KEEP_ALIVE_S if answered or silent else _REPEAT_S)
        return self._next_at

    def leave(self) -> None:
        """What is to be said last was told before; if it was not answered, it was waited for long enough."""
        self._link.close(at_once=self.answer is None)

    def fail(self, error: BaseException) -> None:
        self.error = error
        self._heard()
