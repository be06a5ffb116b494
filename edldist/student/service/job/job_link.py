"""A student rank's link to the coordinator: it registers, sends events, and hears when its group changed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from edldist.clock import Clock
from edldist.errors import ProtocolVersionError
from edldist.lifecycle.group_change import GroupChanged, GroupChangeHandler
from edldist.student.service.delivery import Delivery
from edldist.student.service.job.events import Events
from edldist.student.service.job.shedding import Shedding
from edldist.student.service.options import ServiceOptions
from edldist.tracing.recorder import Recorder
from edldist.wire.enrolment import Enrolment
from edldist.wire.messages import Heartbeat, Register, Regroup, Shed, TeachersHere
from edldist.wire.traced import Traced
from edldist.wire.transport import Link

__all__ = ["JobLink", "Whereabouts"]

logger = logging.getLogger(__name__)

_TURN_MESSAGES = 64


class Whereabouts(NamedTuple):
    """Where this rank is: the address that workers connect to, and its process."""

    address: str
    process: str
    host: str
    pid: int


class JobLink:
    """What a student's service says to the coordinator, and hears from it. Owned by the I/O thread.

    Args:
        options: how the rank takes part.
        where: what is registered of it.
        link: to the coordinator.
        heartbeat: what there is to say of the rank now.
        on_group_change: what this process does when the coordinator says that its group lost a rank.
        recorder: records when the coordinator says so.
        delivery: reads as the coordinator says while the fleet is overloaded.
    """

    def __init__(
        self,
        options: ServiceOptions,
        where: Whereabouts,
        link: Link,
        clock: Clock,
        heartbeat: Callable[[], Heartbeat],
        on_group_change: GroupChangeHandler,
        recorder: Recorder,
        delivery: Delivery,
    ) -> None:
        self._options = options
        self._where = where
        self._link = link
        self._clock = clock
        self._on_group_change = on_group_change
        self.shedding = Shedding(delivery, options.flow.low_watermark, options.fallback)
        self.groups_here: list[str] = []
        """Teacher groups that the coordinator knew when it last knew none of a group that is wanted."""
        self.events = Events(options.student, clock, options.job)
        self._enrolment = Enrolment(
            options.student,
            self._registration,
            heartbeat,
            options.coordinator,
            options.connect_timeout_s,
            clock.monotonic(),
            Traced(options.student, recorder),
        )

    def turn(self, now: float, served: bool) -> None:
        """Read what came, and send what is due.

        Args:
            served: whether a worker is connected.

        Raises:
            EdlDistError: the coordinator refuses this rank, cannot be reached, or is of another revision.
        """
        for _ in range(_TURN_MESSAGES):
            try:
                received = self._link.receive()
            except ProtocolVersionError as exc:
                self._enrolment.misunderstood(exc, served)
                break
            if received is None:
                break
            if isinstance(received.message, Regroup):
                self._change_group(received.message)
                continue
            if isinstance(received.message, Shed):
                self.shedding.take(received.message, now)
                continue
            if isinstance(received.message, TeachersHere):
                self.groups_here = received.message.groups
            if self._enrolment.on_message(received.message, now, self._clock.wall()):
                logger.info("student %s joined at %s", self._options.student, self._options.coordinator)
        self.shedding.look(now)
        for message in self._enrolment.due(now):
            self._link.send(message)
        if self._enrolment.joined:
            self.events.send(self._link)

    def next_due_s(self, now: float) -> float:
        """Seconds until something must be sent."""
        return self._enrolment.next_due_s(now)

    def leave(self, reason: str) -> None:
        """Send the last events, say goodbye, and hang up."""
        messages = self._enrolment.leave(reason, self._clock.monotonic())
        if messages:
            self.events.send(self._link)
        for message in messages:
            self._link.send(message)
        self._link.close(at_once=not messages)

    def _change_group(self, order: Regroup) -> None:
        if order.generation != self._options.group:
            logger.info("told that group %r changed, which is not this rank's", order.generation)
            return
        self._on_group_change(GroupChanged(order.generation, order.reason))

    def _registration(self, rejoin: bool) -> Register:
        return Register(
            id=self._options.student,
            role="student",
            group=self._options.group,
            run=self._options.run,
            generation=self._options.generation,
            job=self._options.job,
            share=self._options.share,
            degrade=[] if self._options.fallback is None else self._options.fallback.chain,
            address=self._where.address,
            teachers=list(self._options.teachers),
            rolling=list(self._options.versions),
            low_watermark=self._options.flow.low_watermark,
            high_watermark=self._options.flow.high_watermark,
            process=self._where.process,
            host=self._where.host,
            pid=self._where.pid,
            wall_s=self._clock.wall(),
            info=self._options.info | {"rejoin": rejoin},
        )
