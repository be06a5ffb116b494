"""A member's side of its registration with the coordinator, as a pure state machine.

::

    joining --Registered--> joined --Unknown--> joining ...      (a coordinator that restarted)
       |                      |
       +-- Refused: RefusedError (where its id is held, after asking again for a while, unless it was
       |            a member before: then another has taken its place)
       +-- never answered for connect_timeout_s: CoordinatorUnreachableError
       +-- of another revision of edldist: ProtocolVersionError, also once joined, unless labels flow
                              +-- leave(): Goodbye

While joining, ``Register`` goes out again with exponential back-off and jitter. While joined,
``Heartbeat`` goes out every interval; they are acknowledged (in a crowd not each one, but within a
TTL), so that silence can be told from idleness (``silent_s``). Silence alone changes nothing: labels
flow without a coordinator, and the link reconnects by itself. A wall clock that differs from the
coordinator's is an event: nothing here depends on it, but times in the record do.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable

import msgspec

from edldist.errors import (
    CoordinatorUnreachableError,
    IncompatibleError,
    ProtocolVersionError,
    RefusedError,
)
from edldist.tracing.recorder import Recorder
from edldist.wire.messages import (
    Ack,
    Event,
    Goodbye,
    Heartbeat,
    Message,
    Refused,
    Register,
    Registered,
    Scalar,
    TraceOrder,
    Unknown,
)
from edldist.wire.traced import Traced

__all__ = ["Enrolment"]

logger = logging.getLogger(__name__)

_FIRST_RETRY_S = 0.1
_MAX_RETRY_S = 2.0
_FIRST_WARNING_S = 3.0
_WARNING_EVERY_S = 30.0
_MAX_CLOCK_SKEW_S = 5.0
_LONGEST_GAP_S = 1.25 * _MAX_RETRY_S + 1.0
"""Between two turns, or two answers while asking: after a longer one, this side or the other stood still."""


class Enrolment:
    """Keeps one member registered.

    The owner calls ``due`` at least every ``next_due_s`` seconds and sends what it returns, and
    passes every message of the coordinator to ``on_message``.

    Args:
        identity: the member's id.
        register: builds the current registration (its links change with time); called with
            whether the member had joined before.
        heartbeat: what there is to say of the member now.
        coordinator: the address, for errors and logs.
        connect_timeout_s: how long to wait for the first answer.
        now: monotonic seconds.
        traced: heeds the coordinator's orders to record.
    """

    def __init__(
        self,
        identity: str,
        register: Callable[[bool], Register],
        heartbeat: Callable[[], Heartbeat],
        coordinator: str,
        connect_timeout_s: float,
        now: float,
        traced: Traced | None = None,
    ) -> None:
        self._identity = identity
        self._traced = traced or Traced(identity, Recorder(lambda: now, ()))
        self._register = register
        self._tell = heartbeat
        self._coordinator = coordinator
        self._connect_timeout_s = connect_timeout_s
        self._jitter = random.Random(identity)
        self.joined = False
        self.incarnation: str | None = None
        self.heartbeat_ttl_s = 3.0
        self._heartbeat_interval_s = 1.0
        self._last_heard = now
        self._joining_s = 0.0  # without an answer ever; what this process slept through does not count
        self._turn_at = now
        self._next_at = now
        self._retry_s = _FIRST_RETRY_S
        self._warn_at = now + _FIRST_WARNING_S
        self._host = ""
        self._refused_at: float | None = None  # last, while its id is another process's
        self._refused_s = 0.0
        self._misunderstood = False
        self._events: list[Message] = []

    @property
    def ever_joined(self) -> bool:
        return self.incarnation is not None

    def silent_s(self, now: float) -> float:
        """Seconds since the coordinator was last heard."""
        return now - self._last_heard

    def next_due_s(self, now: float) -> float:
        return min(max(0.0, self._next_at - now), self._traced.next_due_s(now))

    def _heartbeat(self) -> Heartbeat:
        # A figure that is no finite number would cost the heartbeat: its receiver takes it for garbage.
        told = self._tell()
        stats = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in told.stats.items()
        }
        return msgspec.structs.replace(told, stats=stats)

    def due(self, now: float) -> list[Message]:
        """The messages that are to be sent now.

        Raises:
            CoordinatorUnreachableError: nobody ever answered within ``connect_timeout_s``.
        """
        self._joining_s += min(now - self._turn_at, _LONGEST_GAP_S)
        self._turn_at = now
        self._complain(now)
        events, self._events = [*self._events, *self._traced.due(now)], []
        if now < self._next_at:
            return events
        if self.joined:
            self._next_at = now + self._heartbeat_interval_s
            return [*events, self._heartbeat()]
        self._next_at = now + self._retry_s * self._jitter.uniform(0.75, 1.25)
        self._retry_s = min(self._retry_s * 2, _MAX_RETRY_S)
        registration = self._register(self.ever_joined)
        self._host = registration.host
        return [registration]

    def renew(self) -> None:
        """What is registered of the member has changed: tell the coordinator with the next messages."""
        if self.joined:
            self._events.append(self._register(True))

    def on_message(self, message: Message, now: float, wall: float) -> bool:
        """Take a message of the coordinator in; True when it ended a wait to join.

        Args:
            now: monotonic seconds.
            wall: unix seconds.

        Raises:
            RefusedError: the coordinator refuses this member.
        """
        self._last_heard = now
        self._warn_at = now + _FIRST_WARNING_S + self.heartbeat_ttl_s
        if isinstance(message, Registered):
            joined_now = not self.joined or message.incarnation != self.incarnation
            self.joined = True
            self.incarnation = message.incarnation
            self._heartbeat_interval_s = message.heartbeat_interval_s
            self.heartbeat_ttl_s = message.heartbeat_ttl_s
            self._next_at = now + self._heartbeat_interval_s * self._jitter.uniform(0.5, 1.0)
            self._retry_s = _FIRST_RETRY_S
            self._refused_at = None
            if joined_now:
                self._compare_clocks(message, wall)
            return joined_now
        if isinstance(message, Unknown) and self.joined:
            logger.info(
                "the coordinator at %s does not know this member (any more): joining", self._coordinator
            )
            self.joined = False
            self._next_at = now
        elif isinstance(message, Refused):
            self._refused(message, now)
        elif isinstance(message, TraceOrder):
            self._traced.begin(message, now)
        elif not isinstance(message, Ack):
            logger.debug("a %s of the coordinator is no concern of the enrolment", type(message).__name__)
        return False

    def misunderstood(self, error: ProtocolVersionError, served: bool) -> None:
        """The coordinator is of another revision: nothing that either says reaches the other.

        One that took the place of this member's own in mid-run is as good as none: labels flow on without it,
        where they do, and it is said once.

        Args:
            served: whether labels flow between this member and any other.

        Raises:
            ProtocolVersionError: this member never joined, or nobody would miss it.
        """
        if not (self.ever_joined and served):
            raise error
        if not self._misunderstood:
            logger.error("%s. Going on without a coordinator for as long as labels flow", error)
        self._misunderstood = True

    def _refused(self, message: Refused, now: float) -> None:
        """Give up; or ask again, for as long as whoever holds the id may have died without a word.

        A process that is started anew under its id right after a crash comes before anybody misses the last.
        It asks until it was refused for longer than the coordinator needs to miss somebody. While
        either of the two stood still nobody was missed, and what is read afterwards was said long ago.

        One that was a member before was written off while it was silent, as on a host that was cut off; if
        another has its id by now, that one was started in its place.
        """
        if message.held_for_s is not None and self.ever_joined:
            raise RefusedError(
                f"coordinator {self._coordinator} wrote this member off while it was silent, and another "
                f"process took its place: {message.reason}"
            )
        if message.held_for_s is not None:
            wait_s = message.held_for_s + 2 * _MAX_RETRY_S
            if self._refused_at is None:
                self._refused_s = 0.0
                logger.warning("%s. Asking again for %.0f s, in case it has ended", message.reason, wait_s)
            elif now - self._refused_at <= _LONGEST_GAP_S:
                self._refused_s += now - self._refused_at
            self._refused_at = now
            if self._refused_s < wait_s:
                return
        kind = IncompatibleError if message.incompatible else RefusedError
        raise kind(f"coordinator {self._coordinator} refused this member: {message.reason}")

    def _compare_clocks(self, answer: Registered, wall: float) -> None:
        """The coordinator read its clock between this one's registration and now, or the clocks differ."""
        asked, theirs = answer.asked_wall_s, answer.wall_s
        if not (asked and theirs and math.isfinite(theirs)):
            return
        skew_s = min(0.0, wall - theirs) or max(0.0, asked - theirs)
        if abs(skew_s) > _MAX_CLOCK_SKEW_S:
            fields: dict[str, Scalar] = {
                "id": self._identity,
                "host": self._host,
                "skew_s": round(skew_s, 3),
                "coordinator": answer.incarnation,
            }
            self._events.append(Event(event="clock_skew", t=wall, fields=fields))

    def leave(self, reason: str, now: float) -> list[Message]:
        """The last messages: what was recorded, final figures, then goodbye.

        None where nobody would hear them: while joining, and after a silence of more than a TTL. What waits
        on the link is of no use then either: it may be closed at once.
        """
        if not self.joined or self.silent_s(now) > self.heartbeat_ttl_s:
            return []
        self.joined = False
        return [
            *self._traced.leave(now),
            self._heartbeat(),
            Goodbye(id=self._identity, reason=reason),
        ]

    def _complain(self, now: float) -> None:
        waited_s = self._joining_s
        if not self.ever_joined and waited_s > self._connect_timeout_s:
            raise CoordinatorUnreachableError(
                f"no coordinator answered at {self._coordinator} for {waited_s:.0f} s "
                f"(EDLDIST_CONNECT_TIMEOUT_S={self._connect_timeout_s:g}). "
                "Start one with 'edldist coordinator', or correct the address"
            )
        if now < self._warn_at:
            return
        self._warn_at = now + _WARNING_EVERY_S
        if self.ever_joined:
            logger.warning(
                "no word from the coordinator at %s for %.0f s; going on without it",
                self._coordinator,
                self.silent_s(now),
            )
        else:
            logger.warning(
                "waiting for a coordinator at %s; giving up in %.0f s",
                self._coordinator,
                self._connect_timeout_s - waited_s,
            )
