"""The coordinator process: a socket and a clock around membership, assignment and records.

It never sees a batch, and nothing waits for it: while it is gone labels flow on, and a fresh one
is told everything again by those who are here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from edldist.address_file import AddressFile
from edldist.clock import Clock, SystemClock
from edldist.coordinator.announcing import reached_at
from edldist.coordinator.closing import Closing
from edldist.coordinator.course.history import RunHistory
from edldist.coordinator.course.history_file import HistoryFile
from edldist.coordinator.course.pulse import Pulse
from edldist.coordinator.course.records import Records
from edldist.coordinator.course.reported import Reported, brief
from edldist.coordinator.course.stage_file import StageFile
from edldist.coordinator.key_changes import RELINK_S, keys_changed
from edldist.coordinator.links.orders import Orders
from edldist.coordinator.members.membership import Action, Member, Membership, Record, Send
from edldist.coordinator.occupant import occupant
from edldist.coordinator.options import CoordinatorOptions
from edldist.coordinator.overload.shedding import Shedding
from edldist.coordinator.pages.board import StatusBoard
from edldist.coordinator.pages.pages import CoordinatorPages
from edldist.coordinator.rendezvous import Rendezvous
from edldist.coordinator.rights import forbidden
from edldist.coordinator.scaling.load import loads
from edldist.coordinator.scaling.scaling import Change, Scaling
from edldist.coordinator.status import StatusView
from edldist.coordinator.telling import Telling
from edldist.coordinator.traces import Traces
from edldist.errors import ConfigError, CoordinatorUnreachableError, PeerUnreachableError
from edldist.observe.http import HttpServer
from edldist.observe.repeats import Repeats
from edldist.wire.messages import (
    Ack,
    Event,
    Goodbye,
    Heartbeat,
    HistoryQuery,
    Message,
    NodeQuery,
    NodeReport,
    Refused,
    Register,
    Regroup,
    Report,
    Scalar,
    Scale,
    Scaled,
    Status,
    StatusQuery,
    TraceQuery,
    TraceRecords,
    Vouch,
)
from edldist.wire.transport import Hub, Poller, Received, Sender, Transport

__all__ = ["Coordinator"]

logger = logging.getLogger(__name__)

_HEARD = Ack(seq=0)
MAX_MESSAGES_A_TURN = 2_000
TURN_S = 0.005
"""Least time between turns while messages keep coming: a thousand heartbeats need no thousand polls."""
TURN_A_MEMBER_S = 50e-6
LEAVING_TURN_S = 0.05
"""How often one that was told to leave looks who is still connected: nothing wakes it for that."""
MAX_TURN_S = 0.05
"""In a crowd turns are further apart, so that one wake-up of either thread handles many messages."""
STUCK_INTERVALS, LEAST_STUCK_S = 3, 5.0
"""The main loop turns several times an interval; one that has not for so many, and so long, is stuck."""
GATHER_S = 3.0
"""After so long a fresh coordinator tells how many are here, though more may be on their way."""
CROWD = 256
"""With more members, one that was answered an interval less than a TTL ago gets no answer to its heartbeat:
members wonder after more than a TTL of silence, and an answer costs as much as a heartbeat."""


class Coordinator:
    """Keeps members, decides their links and answers questions.

    The thread that calls ``run`` owns the poller and all state; ``stop``, ``leave`` and ``wait_ready`` are
    for any thread, the first two for signal handlers too. Nothing survives a restart but the address.
    Instead of ``run``, somebody may call ``open``, then ``turn`` as often as it asks for it, then ``close``.

    Args:
        options: how to run.
        transport: the wire.
        clock: the time.
        incarnation: name of this life; None for a random one.
        listener: is told the state of the job twice a second, with what happened since it was told last, and
            once more at the end. It must neither raise nor wait.
    """

    def __init__(
        self,
        options: CoordinatorOptions,
        transport: Transport,
        clock: Clock | None = None,
        incarnation: str | None = None,
        listener: Callable[[Status], None] | None = None,
    ) -> None:
        self.options = options
        self.incarnation = incarnation or secrets.token_hex(8)
        self.address = ""
        self.http_address: str | None = None
        self._transport = transport
        self._clock = clock or SystemClock()
        self._stopping = False
        self._closing = Closing()
        self._bound = threading.Event()
        self._poller: Poller | None = None
        self._resources = contextlib.ExitStack()
        self._hub: Hub
        self._board: StatusBoard
        self._records = Records(self._remember)
        self._reported = Reported(self._records, self._send)
        self._forbidden = Repeats(logger)
        self._started_at = self._clock.monotonic()
        self._members = Membership(
            self.incarnation, options.heartbeat_interval_s, options.heartbeat_ttl_s, self._started_at
        )
        self._rendezvous = Rendezvous(self.incarnation, self._started_at)
        self._traces = Traces(self.incarnation)
        self._generations = 0
        self._scaling = Scaling(options.scale, options.scaling)
        self._shedding = Shedding()
        self._view = StatusView(
            self.incarnation, self._started_at, self._members, self._records, self._scaling, self._shedding
        )
        self._telling = Telling(listener, self._view, self._records)
        self._pulse = Pulse(options.heartbeat_interval_s)
        self._stage_file: StageFile | None = None
        self._history = RunHistory(self.incarnation, self._started_at, self._clock.wall())
        self._orders = Orders(self._members, options.max_students_per_worker, self._clock, self._send)

    def stop(self) -> None:
        """Make ``run`` return soon."""
        self._stopping = True  # no Event: a signal may come while another holds its lock
        self._wake()

    def leave(self, signum: int) -> None:
        """Make ``run`` return once everyone has hung up (see ``closing``), because of a signal."""
        self._closing.told(signum, self._clock.monotonic())
        self._wake()

    def _wake(self) -> None:
        if (poller := self._poller) is not None:
            poller.wake()

    def wait_ready(self, timeout_s: float = 10.0) -> str:
        """The address once it is bound.

        Raises:
            CoordinatorUnreachableError: ``run`` has not bound it within ``timeout_s``.
        """
        if not self._bound.wait(timeout_s):
            raise CoordinatorUnreachableError(f"the coordinator at {self.options.bind} did not start")
        return self.address

    def run(self) -> None:
        """Serve until ``stop()`` is called, or ``leave()`` and everyone has left.

        Raises:
            ConfigError: an address cannot be bound, or the address file not written.
        """
        self.open()
        try:
            due = self._clock.monotonic()
            while not (self._stopping or self._over()):
                self._await(due)
                due = self.turn(self._clock.monotonic())
        finally:
            self.close()
        logger.info("coordinator at %s stopped", self.address)

    def open(self) -> None:
        """Bind everything, and say so.

        Raises:
            ConfigError: an address cannot be bound, or the address file not written. All is closed then.
        """
        if (file := self._address_file()) is not None:
            file.remove()  # a former life's: nobody who waits for this one is to read it
        poller = self._transport.poller()
        self._resources.callback(poller.close)
        try:
            self._hub = self._bind(poller)
            self.address = self._hub.address
            self._view.listens(self.address, self.options.sealed)
            self._poller = poller
            longest_turn_s = max(STUCK_INTERVALS * self.options.heartbeat_interval_s, LEAST_STUCK_S)
            self._board = StatusBoard(poller.wake, longest_turn_s)
            if self.options.history_file is not None:
                kept = HistoryFile(Path(self.options.history_file), self._history)
                self._resources.callback(kept.close)
                wall = self._clock.wall()
                self._members.refusals.recall(self._history.refused(), self._started_at, wall)
            if self.options.stages_file is not None:
                self._stage_file = StageFile(Path(self.options.stages_file))
                self._resources.callback(self._stage_file.close)
            if self.options.http is not None:
                token, all_pages = self.options.http_token, self.options.http_token_all
                pages = CoordinatorPages(self._board, self._history.tell, token, all_pages)
                server = HttpServer(
                    self.options.http, pages, self.options.http_or_any, self.options.http_names
                )
                self._resources.callback(server.close)
                self.http_address = server.address
            self._announce()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release everything that ``open`` bound."""
        self._telling.tell(self._clock.monotonic())
        self._poller = None
        self._resources.close()

    # --- starting -----------------------------------------------------------------------------

    def _bind(self, poller: Poller) -> Hub:
        try:
            return poller.bind(self.options.bind)
        except ConfigError as exc:
            holder = occupant(self.options.bind)
            raise ConfigError(f"{exc}{f'. {holder} listens there: stop it first' if holder else ''}") from exc

    def _announce(self) -> None:
        now, wall = self._clock.monotonic(), self._clock.wall()
        self._next_tick = self._next_turn = now
        fields: dict[str, Scalar] = {
            "incarnation": self.incarnation,
            "address": self.address,
            "http": self.http_address,
            "pid": os.getpid(),
        }
        self._records.add(Event(event="coordinator_started", t=wall, fields=fields))
        if (file := self._address_file()) is not None:
            file.write(fields | {"address": reached_at(self.address, self.options.advertise)})
        logger.info("coordinator %s at %s, HTTP %s", self.incarnation, self.address, self.http_address)
        self._bound.set()

    def _address_file(self) -> AddressFile | None:
        path = self.options.address_file
        return None if path is None else AddressFile(Path(path).absolute())

    # --- one turn of the loop -----------------------------------------------------------------

    def _over(self) -> bool:
        return self._closing.begun and self._closing.over(self._hub.connected, self._clock.monotonic())

    def _await(self, due: float) -> None:
        """Wait until a turn is due or messages came, but not less than the pause between turns."""
        assert self._poller is not None
        now = self._clock.monotonic()
        if self._closing.begun:
            due = min(due, now + LEAVING_TURN_S)
        self._poller.wait(max(0.0, due - now))
        if (early_s := self._next_turn - self._clock.monotonic()) > 0:
            time.sleep(early_s)  # in Event.wait, a signal handler's stop() could find its lock held below it

    def turn(self, now: float) -> float:
        """Take in what members sent, decide, and answer (see ``wire.turns``)."""
        wall = self._clock.wall()
        for _ in range(MAX_MESSAGES_A_TURN):
            received = self._hub.receive()
            if received is None:
                break
            self._act(self._handle(received, now, wall))
        self._see_keys(now, wall)
        self._next_turn = now + min(self._turn_s(), self.options.heartbeat_interval_s / 10)
        if now >= self._next_tick:
            # After the messages: heartbeats that wait in the socket must not count as silence.
            self._next_tick = now + self.options.heartbeat_interval_s / 4
            self._act(self._members.tick(now, wall))
        for action in self._rendezvous.decide(now):
            if not self._send(action.peer, action.message):
                self._rendezvous.unreachable(action.peer, now)
        self._dismiss()
        if now >= self._orders.due_at(now):
            self._orders.decide(now)
        if now >= self._scaling.due_at and self._members.settled(now):
            for change in self._scaling.decide(loads(self._members.members.values()), now):
                self._record_change(change, wall)
        if self._shedding.due(now) and self._members.settled(now):
            self._act(self._shedding.decide(self._members.members.values(), now, wall))
        if self._history.due(now) and (self._members.settled(now) or now - self._started_at >= GATHER_S):
            self._history.look(self._pulse.take(self._members.members, self._scaling.wanted, now), now)
        self._board.turned()
        self._telling.turn(now)
        if self._board.wanted:
            self._board.publish(self._view.page(now, self._hub.garbage + self._reported.refused))
        return min(self._next_tick, self._orders.due_at(now), self._rendezvous.due_at())

    def _see_keys(self, now: float, wall: float) -> None:
        """Record that keys were rotated, added or retired; with a new one of its own this side hung up."""
        if (news := self._hub.key_news()) is not None:
            self._act([Record(keys_changed(news, wall))])
            if news.rotated:
                self._members.hung_up(now + RELINK_S)

    def _remember(self, record: Event | Report) -> None:
        """Let the history know what the records take in."""
        now = self._clock.monotonic()
        if isinstance(record, Report):
            self._history.report(record, now)
        else:
            self._history.happened(record, now)

    def _turn_s(self) -> float:
        return min(max(TURN_S, TURN_A_MEMBER_S * len(self._members.members)), MAX_TURN_S)

    def _handle(self, received: Received, now: float, wall: float) -> list[Action]:
        peer, message = received.sender, received.message
        members = self._members
        if reason := forbidden(peer.role, message):
            self._forbidden.warn(f"{peer}: {reason}")
            self._send(peer, Refused(reason=reason))
            return []
        if isinstance(message, Heartbeat):
            actions = members.heartbeat(peer, message, now)
            if not actions:
                member = members.members[message.id]
                self._answer_heartbeat(member, now)
                if message.rows and self._stage_file is not None:
                    count = len(members.members)
                    self._stage_file.take(member.register, message.rows, count, now, wall)
            return actions
        if not isinstance(message, Register):  # which may be of another process than the one of that id
            members.heard(peer, now)
        if isinstance(message, Vouch):
            members.vouched(peer, message, now)
            return []
        if isinstance(message, Register):
            if (order := self._dismissal(message)) is not None:
                return [Send(peer, order)]
            self._orders.forget(message.id)
            return members.register(peer, message, now, wall, peer.owner)
        if isinstance(message, Goodbye):
            return members.goodbye(peer, message, wall)
        if isinstance(message, Report):
            self._reported.report(peer, message)
        elif isinstance(message, Event):
            self._reported.event(peer, message)
        elif isinstance(message, StatusQuery):
            status = self._view.whole(now, message.since)
            self._send(peer, msgspec.structs.replace(status, wall_s=wall))
        elif isinstance(message, HistoryQuery):
            self._send(peer, self._history.tell(message.since))
        elif isinstance(message, NodeQuery):
            self._send(peer, self._view.of_node(message))
        elif isinstance(message, Scale):
            self._scale(peer, message, now, wall)
        elif isinstance(message, NodeReport):
            self._rendezvous.report(peer, message, now, peer.owner)
        elif isinstance(message, TraceQuery):
            self._carry(self._traces.ask(peer, message, members.members, self._clock.monotonic()))
        elif isinstance(message, TraceRecords):
            self._carry(self._traces.records(peer, message, members.members, self._clock.monotonic()))
        else:
            logger.debug("a %s from %s is none of a coordinator's", type(message).__name__, peer)
        return []

    def _carry(self, messages: Iterable[tuple[Sender, Message]]) -> None:
        """Send what a trace asks for; whoever is not reached is not waited for."""
        for peer, message in messages:
            if not self._send(peer, message):
                self._traces.unreachable(peer)

    def _scale(self, peer: Sender, message: Scale, now: float, wall: float) -> None:
        try:
            change = self._scaling.hold(message.group, message.workers, now)
        except ConfigError as exc:
            self._send(peer, Refused(reason=str(exc)))
            return
        if change is not None:
            self._record_change(change, wall)
        self._send(peer, Scaled(group=self._view.group(message.group)))

    def _record_change(self, change: Change, wall: float) -> None:
        if change.before is None:
            return  # a coordinator that has just started found it so, or began with it
        fields: dict[str, Scalar] = {
            "name": change.group,
            "before": change.before,
            "wanted": change.wanted,
            "reason": change.why,
        }
        self._act([Record(Event(event="scaled", t=wall, fields=fields))])

    def _dismissal(self, member: Register) -> Regroup | None:
        """What a rank is told whose generation is over.

        It may not know it: its host was cut off, its agent is frozen, or it waits in a collective for ranks
            that
        are in another generation by now. Were it a member again it would take labels a second time.
        """
        reason = self._rendezvous.over(member.run, member.generation) if member.run else ""
        return Regroup(generation=member.group, lost=member.id, reason=reason) if reason else None

    def _dismiss(self) -> None:
        """Once runs have new generations, tell those ranks of former ones that are still here."""
        if self._generations == self._rendezvous.generations:
            return
        self._generations = self._rendezvous.generations
        for member in self._members.members.values():
            if (order := self._dismissal(member.register)) is not None:
                self._send(member.peer, order)

    def _answer_heartbeat(self, member: Member, now: float) -> None:
        """Let the member tell a quiet coordinator from a dead one, and repeat what it may have missed."""
        if member.is_teacher:
            self._orders.refresh(member, now)
        crowded = len(self._members.members) > CROWD
        quiet_s = self.options.heartbeat_ttl_s - self.options.heartbeat_interval_s
        if not crowded or now - member.answered_at >= quiet_s:
            member.answered_at = now
            self._send(member.peer, _HEARD)

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self._send(action.peer, action.message)
            else:
                event = action.event
                self._records.add(event)
                bad = event.event in ("teacher_lost", "teacher_refused", "student_lost")
                logger.log(logging.WARNING if bad else logging.INFO, "%s: %s", event.event, brief(event))

    def _send(self, peer: Sender, message: Message) -> bool:
        try:
            self._hub.send(peer, message)
        except PeerUnreachableError:
            return False  # its TTL decides what that means
        return True
