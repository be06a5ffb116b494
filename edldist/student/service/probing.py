"""Looks after the connected workers, ten times a second: who is silent, late, free again, or of no use."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edldist.student.service.absent_groups import AbsentGroups
from edldist.student.service.answers import Answers
from edldist.student.service.comparing import Comparing
from edldist.student.service.delivery import Delivery
from edldist.student.service.job.events import Events
from edldist.student.service.options import ServiceOptions
from edldist.student.service.peers import ConnectedWorker, Peers
from edldist.student.service.pinging import Pinging
from edldist.student.service.standards import Standards
from edldist.wire.messages import Message, Unknown
from edldist.wire.transport import Sender

__all__ = ["PROBE_S", "Probing"]

logger = logging.getLogger(__name__)

PROBE_S = 0.1
_IDLE_PING_S = 1.0


class Probing:
    """Looks at every worker each ``PROBE_S``. Owned by the I/O thread; what is unsuited, any may ask.

    Args:
        options: how long who is silent is waited for.
        shared: delivery, workers and events of the student.
        comparing, standards, answers, pinging, absent: those of the service.
        now: monotonic seconds.
        lose: writes a worker off, with the reason.
        reach: says something to an address; whether anybody is connected there.

    Attributes:
        next_s: when it is due again.
        idle_ping_s: how long a worker that holds nothing is left in peace.
    """

    def __init__(
        self,
        options: ServiceOptions,
        shared: tuple[Delivery, Peers, Events],
        comparing: Comparing,
        standards: Standards,
        answers: Answers,
        pinging: Pinging,
        absent: AbsentGroups,
        now: float,
        lose: Callable[[ConnectedWorker, str], None],
        reach: Callable[[Sender, Message], bool],
    ) -> None:
        self._ttl_s = options.heartbeat_ttl_s
        self._delivery, self._peers, self._events = shared
        self._comparing = comparing
        self._standards = standards
        self._answers = answers
        self._pinging = pinging
        self._absent = absent
        self._lose = lose
        self._reach = reach
        # Several to a time to live, or one that is idle and well would be taken for silent.
        self.idle_ping_s = min(_IDLE_PING_S, self._ttl_s / 3)
        self._last = self.next_s = now
        self._unsuited = (0.0, "")  # when it was looked for, and what was found

    def unsuited(self, since: float) -> str:
        """Why no worker that is here suits this student, as seen after ``since``; empty if one may."""
        seen, reason = self._unsuited
        return reason if seen > since else ""

    def turn(self, now: float) -> bool:
        """Probe, if it is time; whether it was."""
        if now < self.next_s:
            return False
        self.next_s = now + PROBE_S
        self._touch(now)
        for worker in self._peers.paroled(now):
            self._delivery.parole(worker.key)
        self._comparing.look()
        self._call_back(now)
        self._absent.look(now, self._peers.teachers())
        verdict = self._standards.verdict(self._peers.teachers(), now, self._reach)
        self._unsuited = self._unsuited if verdict is None else (now, verdict)
        self._events.poisoned(self._delivery.verdicts())
        self._offer_late_tasks()
        return True

    def _touch(self, now: float) -> None:
        """Touch every worker that holds something, and find out who is silent.

        Silence counts only while this side listened: after a stop of this process (suspended, or the
        interpreter lock was held for long) what the workers said still waits in the socket.
        """
        away_s = now - self._last
        self._last = now
        if away_s > self._ttl_s / 2:
            for worker in self._peers:
                worker.last_heard = min(now, worker.last_heard + away_s)
        for worker in self._peers:
            silent_s = now - worker.last_heard
            if silent_s > self._ttl_s:
                self._lose(worker, f"silent for {silent_s:.1f} s (heartbeat_ttl_s={self._ttl_s:g})")
                continue
            holds = self._pinging.held(worker)
            if now - worker.last_sent >= (PROBE_S / 2 if holds else self.idle_ping_s):
                self._pinging.ping(worker)

    def _call_back(self, now: float) -> None:
        """Tell workers that were unreachable, and live, to greet anew as soon as they are connected again.

        One that waits for tasks would find out by this side's silence alone.
        """
        for peer in self._peers.called_back(now, self._ttl_s):
            if self._reach(peer, Unknown()):
                self._peers.reached(peer)

    def _offer_late_tasks(self) -> None:
        for overdue in self._delivery.expire():
            worker = self._peers.of_key(overdue.worker)
            logger.warning(
                "worker %s has held %d tasks for %.1f s without an answer, although it answers pings (it had "
                "%.1f s): others get them too, and it gets no more until it answers",
                *(worker.name, overdue.leases, overdue.held_s, overdue.allowed_s),
            )
            self._answers.record(
                overdue.returned, worker, "its answer is overdue although its heartbeat goes on"
            )
