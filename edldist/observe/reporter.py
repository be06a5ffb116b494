"""``edldist.report``: figures of the training script, kept until the coordinator has them.

One thread and one link per process, made on first use inside a job; a fork uses its parent's. Reports and
events are sent until they are acknowledged, so a coordinator may die and come back meanwhile.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import os
import socket
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable

import msgspec

from edldist.address_file import parse_coordinator
from edldist.clock import Clock, SystemClock
from edldist.environment import JobEnvironment
from edldist.errors import EdlDistError, InputError, RefusedError, WireError
from edldist.keys.pair import STUDENT
from edldist.ranks.placement import placement
from edldist.wire.messages import MAX_FIELDS, MAX_NAME, Ack, Event, Refused, Report, Scalar, decode, encode
from edldist.wire.transport import Transport, closed_on_error
from edldist.wire.zmq.keys import socket_keys
from edldist.wire.zmq.transport import ZmqTransport

__all__ = ["Reporter", "event", "expect_end", "flush", "name_coordinator", "report"]

logger = logging.getLogger(__name__)

_RESEND_S = 1.0
_FLUSH_S = 5.0
"""How long the end of a process waits for a coordinator that answered it before and no longer does."""
_FIRST_ANSWER_S = 15.0
"""The same for one that has not answered yet: on a busy machine that may take its time."""
_HURRIED_S = 1.0
"""The same for either once this process was asked to end: the coordinator may have been, too."""
_FORK_BYTES = 1 << 20
_TURN_MESSAGES = 64
_MAX_UNACKNOWLEDGED = 10_000


class _ParentGone(Exception):
    """Nobody takes a fork's reports any more."""


class Reporter:
    """Sends reports and events of one process and of its forks.

    ``report``, ``event`` and ``close`` may be called from any thread; the link belongs to the thread that
    calls the turns, which is the reporter's own once it is started. A fork has only the memory of all this,
    and a lock that some thread held at the moment of the fork is held in it for ever. So a fork opens no
    link: it hands what it has to say to the process that it was forked from, through a socket of the
    kernel's, and may end at once, in whichever way.
    """

    def __init__(
        self,
        coordinator: str,
        rank: int,
        transport: Transport | None = None,
        job: str = "",
        clock: Clock | None = None,
    ) -> None:
        parse_coordinator(coordinator, "EDLDIST_COORDINATOR")
        self.coordinator = coordinator
        self._job = job
        self._pid = os.getpid()
        self._name = f"report-rank{rank}-{uuid.uuid4().hex[:10]}"
        self._rank = rank
        self._seq = 0
        self._lock = threading.Lock()
        self._unacknowledged: deque[Report | Event] = deque(maxlen=_MAX_UNACKNOWLEDGED)
        self._fresh: deque[Report | Event] = deque()
        self.ended = False
        self._closing = False
        self._closed_at: float | None = None
        self._heard_at = -math.inf
        self._clock = clock or SystemClock()
        self._resend_at = self._clock.monotonic() + _RESEND_S
        transport = transport or ZmqTransport(tensors=False, keys=socket_keys(STUDENT))
        with closed_on_error(transport.poller()) as self._poller:
            self._link = self._poller.connect(coordinator, self._name)
            self._inbox, self._outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._inbox.setblocking(False)
            self._outbox.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _FORK_BYTES)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin. From now on turns and link belong to a thread."""
        thread = threading.Thread(target=self._run, name="edldist-report", daemon=True)
        try:
            thread.start()
        except BaseException:
            self._let_go()
            raise
        self._thread = thread

    @property
    def inherited(self) -> bool:
        """Whether this is a fork's copy of another process's reporter."""
        return os.getpid() != self._pid

    def report(self, values: dict[str, Scalar]) -> None:
        """Send figures.

        Raises:
            InputError: they are more than one message holds.
            _ParentGone: in a fork: nobody takes them any more.
        """
        report = Report(reporter="", seq=0, rank=self._rank, t=time.time(), values=values, job=self._job)
        self._take("report", report, values)

    def event(self, name: str, fields: dict[str, Scalar]) -> None:
        """Send an event.

        Raises:
            InputError: its fields are more than one message holds.
            _ParentGone: in a fork: nobody takes it any more.
        """
        self._take("event", Event(event=name, t=time.time(), fields=fields, job=self._job), fields)

    def close(self, timeout_s: float | None = None) -> bool:
        """Wait until everything is acknowledged, and end; False if time ran out first.

        Args:
            timeout_s: most seconds to wait; by default as long as the coordinator answers.
        """
        self._closing = True
        if self._thread is None:
            self._run()
        else:
            self._poller.wake()
            self._thread.join(timeout_s)
        return not self._unacknowledged

    def forked(self) -> None:
        """In a fork: let the inbox be the parent's alone, so that its end is noticed."""
        self._inbox.close()

    def _take(self, what: str, item: Report | Event, values: dict[str, Scalar]) -> None:
        _check_size(what, item, values)
        if self.inherited:
            self._hand_over(item)
            return
        with self._lock:
            self._number(item)
        self._poller.wake()

    def _number(self, item: Report | Event) -> None:
        self._seq += 1
        numbered = msgspec.structs.replace(item, reporter=self._name, seq=self._seq)
        self._unacknowledged.append(numbered)
        self._fresh.append(numbered)

    def _hand_over(self, item: Report | Event) -> None:
        try:
            self._outbox.settimeout(_FLUSH_S)
            self._outbox.send(encode(item))
        except OSError as exc:
            raise _ParentGone(f"the process that sent this one's reports is gone: {exc}") from exc
        self._poller.wake()  # the parent's: its bell is one file of both

    def _take_from_forks(self) -> None:
        while True:
            try:
                data = self._inbox.recv(_FORK_BYTES)
            except (BlockingIOError, OSError):
                return
            if not data:
                return
            item = decode(data)
            if isinstance(item, Report | Event):
                with self._lock:
                    self._number(item)

    # --- the thread's side ----------------------------------------------------------------------

    def turn(self, now: float) -> float:
        """Take in what forks and the coordinator say, and send what is new, or was not answered (``turns``).

        The last one, after which there is nothing to send or nobody to wait for, sets ``ended``.
        """
        if self._closing and self._closed_at is None:
            self._closed_at = now
            # From now on forks find nobody; what they have handed over is still in here.
            with contextlib.suppress(OSError):
                self._inbox.shutdown(socket.SHUT_RD)
        self._take_from_forks()
        self._take_answers(now)
        give_up_at = self._give_up_at()
        if self._closed_at is not None and (not self._unacknowledged or now > give_up_at):
            self.ended = True
            return now
        self._send(fresh_only=now < self._resend_at)
        if now >= self._resend_at:
            self._resend_at = now + _RESEND_S
        return min(self._resend_at, give_up_at)

    def _give_up_at(self) -> float:
        if self._closed_at is None:
            return math.inf
        patience_s = _FLUSH_S if self._heard_at > -math.inf else _FIRST_ANSWER_S
        patience_s = _HURRIED_S if _end_expected else patience_s
        return max(self._closed_at, self._heard_at) + patience_s

    def _run(self) -> None:
        due = 0.0
        try:
            while not self.ended:
                self._poller.wait(max(0.0, due - self._clock.monotonic()))
                due = self.turn(self._clock.monotonic())
        except (EdlDistError, RuntimeError) as exc:
            logger.error("reports of this process no longer leave it: %s", exc)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._poller.close(at_once=True)  # what is left was waited for long enough
        self._inbox.close()
        self._outbox.close()

    def _send(self, fresh_only: bool) -> None:
        with self._lock:
            sending = list(self._fresh if fresh_only else self._unacknowledged)
            self._fresh.clear()
        for item in sending:
            self._link.send(item)

    def _take_answers(self, now: float) -> None:
        for _ in range(_TURN_MESSAGES):
            if (received := self._link.receive()) is None:
                return
            if isinstance(received.message, Ack):
                with self._lock:
                    while self._unacknowledged and self._unacknowledged[0].seq <= received.message.seq:
                        self._unacknowledged.popleft()
                        self._heard_at = now
            elif isinstance(received.message, Refused):
                raise RefusedError(f"the coordinator refused them: {received.message.reason}")


_reporter: Reporter | None = None
_coordinator: str | None = None
_said_where = False
_left_alone: list[Reporter] = []
_made = threading.Lock()
_watching_forks = False
_end_expected = False


def report(**values: Scalar) -> None:
    """Report figures of the training loop, from any rank. Does nothing outside a job.

    ``step``, ``steps`` (how many there will be), ``epoch``, ``epochs`` and ``loss`` drive the
    progress view; every other key is a metric. ``step`` and ``epoch`` count what is complete, as
    ``DistillLoader.epoch`` does: the first epoch is 0 while it runs. The last value of each metric of rank 0
    is written to ``result.json``. Zero-dimensional tensors and numpy numbers are taken too.

    Raises:
        InputError: a value is no number, string or bool.
    """
    plain = {name: _scalar(name, value) for name, value in values.items()}
    _tell(lambda reporter: reporter.report(plain), figures=True)


def event(name: str, **fields: Scalar) -> None:
    """Add a line to the job's ``events.jsonl``. Does nothing outside a job."""
    plain = {key: _scalar(key, value) for key, value in fields.items()}
    _tell(lambda reporter: reporter.event(name, plain))


def _tell(say: Callable[[Reporter], None], figures: bool = False) -> None:
    environment = JobEnvironment.read()
    coordinator = _coordinator or environment.coordinator
    if coordinator is None:
        return
    with _made:
        if figures:
            _say_where(coordinator, environment.output)
        reporter = _reporter or _make(coordinator)
    try:
        say(reporter)
    except _ParentGone:
        with _made:
            reporter = _make(coordinator)
        say(reporter)


def name_coordinator(address: str) -> None:
    """A loader of this process was given its coordinator as an argument: reports go there from now on, too.

    What was reported before goes to the coordinator that it was meant for.
    """
    global _coordinator
    if _reporter is not None and _reporter.coordinator != address:
        flush()
    _coordinator = address


def _say_where(coordinator: str, output: str | None) -> None:
    """Once for each group of ranks: who starts a script by hand does not know where its figures end up."""
    global _said_where
    if _said_where or placement().rank != 0:
        return
    _said_where = True
    if output is not None:
        logger.info("figures of report() go to result.json and events.jsonl in %s", output)
    else:
        logger.warning(
            "figures of report() go to the coordinator at %s, which keeps them in files if it was started "
            "with --output",
            coordinator,
        )


def _make(coordinator: str) -> Reporter:
    """A reporter of this process's own, which is flushed however Python ends the process."""
    global _reporter, _watching_forks
    if _reporter is not None:
        _left_alone.append(_reporter)  # its sockets are the parent's: nothing of it may be closed here
    made = Reporter(coordinator, placement().rank, job=JobEnvironment.read().job or "")
    made.start()
    _reporter = made
    atexit.register(flush)
    if "multiprocessing.util" in sys.modules:  # its processes run no exit handlers but these
        from multiprocessing import util

        util.Finalize(None, flush, exitpriority=100)
    if not _watching_forks:
        _watching_forks = True
        os.register_at_fork(after_in_child=_forked)
    return _reporter


def _forked() -> None:
    global _made
    _made = threading.Lock()  # another thread of the parent's may have held it
    if _reporter is not None:
        _reporter.forked()


def expect_end() -> None:
    """This process was asked to end: be brief for a coordinator. For signal handlers, too."""
    global _end_expected
    _end_expected = True


def flush() -> None:
    """Wait until everything reported so far has arrived, and end the reporter."""
    global _reporter
    with _made:
        if _reporter is None or _reporter.inherited:
            return
        reporter, _reporter = _reporter, None
    try:
        if not reporter.close():
            logger.warning("the last reports did not reach the coordinator")
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
