"""``edldist.report``: figures of the training script, kept until the coordinator has them.

One thread and one link per process, made on first use inside a job. Reports are sent until they
are acknowledged, so a coordinator may die and come back meanwhile. Events are sent once.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import os
import threading
import time
import uuid
from collections import deque

from edldist.address import parse_address
from edldist.environment import JobEnvironment
from edldist.errors import EdlDistError, InputError, RefusedError, WireError
from edldist.ranks.placement import placement
from edldist.wire.messages import MAX_FIELDS, MAX_NAME, Ack, Event, Refused, Report, Scalar, encode
from edldist.wire.transport import Transport
from edldist.wire.zmq.transport import ZmqTransport

__all__ = ["Reporter", "event", "flush", "report"]

logger = logging.getLogger(__name__)

_RESEND_S = 1.0
_FLUSH_S = 5.0
_TURN_MESSAGES = 64
_MAX_UNACKNOWLEDGED = 10_000


class Reporter:
    """Sends reports and events of one process.

    ``report``, ``event`` and ``close`` may be called from any thread; the link belongs to the
    reporter's own.
    """

    def __init__(self, coordinator: str, rank: int, transport: Transport | None = None) -> None:
        parse_address(coordinator, "EDLDIST_COORDINATOR")
        self._sender = f"report-rank{rank}-{uuid.uuid4().hex[:10]}"
        self._rank = rank
        self._seq = 0
        self._lock = threading.Lock()
        self._unacknowledged: deque[Report] = deque(maxlen=_MAX_UNACKNOWLEDGED)
        self._fresh: deque[Report | Event] = deque()
        self._closing = False
        self._poller = (transport or ZmqTransport()).poller()
        self._link = self._poller.connect(coordinator, self._sender)
        self._thread = threading.Thread(target=self._run, name="edldist-report", daemon=True)
        self._thread.start()

    def report(self, values: dict[str, Scalar]) -> None:
        """Send figures.

        Raises:
            InputError: they are more than one message holds.
        """
        with self._lock:
            number = self._seq + 1
            item = Report(sender=self._sender, seq=number, rank=self._rank, t=time.time(), values=values)
            _check_size("report", item, values)
            self._seq = number
            self._unacknowledged.append(item)
            self._fresh.append(item)
        self._poller.wake()

    def event(self, name: str, fields: dict[str, Scalar]) -> None:
        """Send an event, once.

        Raises:
            InputError: its fields are more than one message holds.
        """
        item = Event(event=name, t=time.time(), fields=fields)
        _check_size("event", item, fields)
        with self._lock:
            self._fresh.append(item)
        self._poller.wake()

    def close(self, timeout_s: float = _FLUSH_S) -> bool:
        """Wait until everything is acknowledged, and end; False if time ran out first."""
        self._closing = True
        self._poller.wake()
        self._thread.join(timeout_s)
        return not self._unacknowledged

    def _run(self) -> None:
        try:
            self._serve()
        except (EdlDistError, RuntimeError) as exc:
            logger.error("reports of this process no longer leave it: %s", exc)
        finally:
            self._poller.close()

    def _serve(self) -> None:
        resend_at = time.monotonic() + _RESEND_S
        give_up_at = math.inf
        while not (self._closing and not self._fresh and not self._unacknowledged):
            now = time.monotonic()
            if self._closing:
                give_up_at = min(give_up_at, now + _FLUSH_S)
                if now > give_up_at:
                    break
            self._poller.wait(max(0.0, min(resend_at, give_up_at) - now))
            self._take_answers()
            with self._lock:
                sending: list[Report | Event] = list(self._fresh)
                self._fresh.clear()
                now = time.monotonic()
                if now >= resend_at:
                    resend_at = now + _RESEND_S
                    fresh = {id(item) for item in sending}
                    sending = [*(r for r in self._unacknowledged if id(r) not in fresh), *sending]
            for item in sending:
                self._link.send(item)

    def _take_answers(self) -> None:
        for _ in range(_TURN_MESSAGES):
            if (received := self._link.receive()) is None:
                return
            if isinstance(received.message, Ack):
                with self._lock:
                    while self._unacknowledged and self._unacknowledged[0].seq <= received.message.seq:
                        self._unacknowledged.popleft()
            elif isinstance(received.message, Refused):
                raise RefusedError(f"the coordinator refused them: {received.message.reason}")


_reporter: Reporter | None = None
_owner: int | None = None
_made = threading.Lock()


def report(**values: Scalar) -> None:
    """Report figures of the training loop, from any rank. Does nothing outside a job.

    ``step``, ``steps`` (how many there will be), ``epoch``, ``epochs`` and ``loss`` drive the
    progress view; every other key is a metric. The last value of each metric of rank 0 is
    written to ``result.json``. Zero-dimensional tensors and numpy numbers are taken too.

    Raises:
        InputError: a value is no number, string or bool.
    """
    plain = {name: _scalar(name, value) for name, value in values.items()}
    reporter = _current()
    if reporter is not None:
        reporter.report(plain)


def event(name: str, **fields: Scalar) -> None:
    """Add a line to the job's ``events.jsonl``. Does nothing outside a job."""
    plain = {key: _scalar(key, value) for key, value in fields.items()}
    reporter = _current()
    if reporter is not None:
        reporter.event(name, plain)


def _current() -> Reporter | None:
    global _reporter, _owner
    environment = JobEnvironment.read()
    if environment.coordinator is None:
        return None
    with _made:
        if _reporter is None or _owner != os.getpid():
            _reporter = Reporter(environment.coordinator, placement().rank)
            _owner = os.getpid()
            atexit.register(flush)
        return _reporter


def flush() -> None:
    """Wait until everything reported so far has arrived, and end the reporter."""
    global _reporter
    with _made:
        reporter, _reporter = _reporter, None
    if reporter is None or _owner != os.getpid():
        return
    try:
        if not reporter.close():
            logger.warning("the last reports did not reach the coordinator within %.0f s", _FLUSH_S)
    except EdlDistError as exc:
        logger.warning("reports were lost: %s", exc)


def _check_size(what: str, item: Report | Event, values: dict[str, Scalar]) -> None:
    """Refuse here, where the user can see it, what the coordinator would drop."""
    if len(values) > MAX_FIELDS:
        raise InputError(f"{what}() of {len(values)} values; {MAX_FIELDS} fit. Report fewer at once")
    try:
        encode(item)
    except WireError as exc:
        raise InputError(f"{what}() of {len(values)} values: {exc}") from exc


def _scalar(name: str, value: object) -> Scalar:
    """The value in a form that a message carries, or an error where the user can see it."""
    if len(name) > MAX_NAME:
        raise InputError(f"report({name[:32]}...=...): a name of {len(name)} characters; {MAX_NAME} fit")
    plain: object = value
    item = getattr(value, "item", None)
    if item is not None:
        with contextlib.suppress(RuntimeError, ValueError, TypeError):
            plain = item()
    if plain is None or isinstance(plain, bool):
        return plain
    if isinstance(plain, int):
        if not -(1 << 63) <= plain < 1 << 64:
            raise InputError(f"report({name}={plain}): does not fit 64 bits; report it as a float")
        return int(plain)
    if isinstance(plain, float):
        return float(plain)
    if isinstance(plain, str):
        return str(plain)
    raise InputError(f"report({name}=...): {type(value).__name__} is no number, string or bool")
