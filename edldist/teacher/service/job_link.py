"""A worker's link to the coordinator: it registers, and hears which students to serve."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

import msgspec

from edldist.clock import Clock
from edldist.errors import CoordinatorUnreachableError, IncompatibleError, ProtocolVersionError
from edldist.labels.fingerprint import Fingerprint
from edldist.teacher.service.identity import TeacherIdentity
from edldist.tracing.recorder import Recorder
from edldist.wire.enrolment import Enrolment
from edldist.wire.messages import Heartbeat, Links, Message, Register
from edldist.wire.traced import Traced
from edldist.wire.transport import Link

__all__ = ["JobLink"]

logger = logging.getLogger(__name__)

_TURN_MESSAGES = 64


class JobLink:
    """What a worker's service says to the coordinator, and hears from it. Owned by the I/O thread.

    Args:
        identity: who the worker is.
        link: to the coordinator.
        heartbeat: what there is to say of the worker now.
        students: ids of those that it has links to; changes with them.
        recorder: records when the coordinator says so.

    Attributes:
        fingerprint: what is registered of the worker; its outputs become known with the first pass.
    """

    def __init__(
        self,
        identity: TeacherIdentity,
        link: Link,
        clock: Clock,
        heartbeat: Callable[[], Heartbeat],
        students: Collection[str],
        recorder: Recorder,
    ) -> None:
        self._identity = identity
        self._link = link
        self._clock = clock
        self._students = students
        self._refused = False  # another model took this one's place
        self.fingerprint: Fingerprint = identity.fingerprint
        self._enrolment = Enrolment(
            identity.worker,
            self._registration,
            heartbeat,
            identity.coordinator,
            identity.connect_timeout_s,
            clock.monotonic(),
            Traced(identity.worker, recorder),
        )

    def turn(self, now: float, serving: bool) -> list[Links]:
        """Read what came, and send what is due.

        Args:
            serving: whether there is a student that takes this worker's labels.

        Returns:
            The orders that came, in their order.

        Raises:
            EdlDistError: the coordinator refuses this worker, is of another revision, or cannot be reached,
                and nobody else needs it.
        """
        orders: list[Links] = []
        for _ in range(_TURN_MESSAGES):
            try:
                received = self._link.receive()
            except ProtocolVersionError as exc:
                self._enrolment.misunderstood(exc, serving)
                break
            if received is None:
                break
            if isinstance(received.message, Links):
                if self._enrolment.joined:  # else it is for the process that had this id before
                    orders.append(received.message)
            elif self._enrol(received.message, now, serving):
                self._refused = False
                logger.info("joined the job at %s", self._identity.coordinator)
        for message in self._enrolment.due(now):
            self._link.send(message)
        return orders

    def next_due_s(self, now: float) -> float:
        """Seconds until something must be sent."""
        return self._enrolment.next_due_s(now)

    @property
    def heartbeat_ttl_s(self) -> float:
        """Silence after which the coordinator takes this worker for lost."""
        return self._enrolment.heartbeat_ttl_s

    @property
    def waits_for(self) -> str | None:
        """What keeps this worker from being a member of its job, in words; None while it is one."""
        if self._enrolment.joined:
            return None
        return f"the coordinator at {self._identity.coordinator} does not know it (yet)"

    def renew(self, version: str, weights: str) -> None:
        """The model is another version now: register it."""
        self.fingerprint = msgspec.structs.replace(self.fingerprint, version=version, weights=weights)
        self._enrolment.renew()

    def leave(self, reason: str) -> None:
        """Say goodbye, and hang up."""
        messages = self._enrolment.leave(reason, self._clock.monotonic())
        for message in messages:
            self._link.send(message)
        self._link.close(at_once=not messages)

    def end_if_orphaned(self, now: float) -> None:
        """To be called while no student is served.

        Raises:
            CoordinatorUnreachableError: nor was the coordinator heard for so long as one waits for it.
        """
        silent_s, patience_s = self._enrolment.silent_s(now), self._identity.connect_timeout_s
        if self._enrolment.ever_joined and silent_s > patience_s:
            raise CoordinatorUnreachableError(
                f"no word from the coordinator at {self._identity.coordinator} for {silent_s:.0f} s "
                f"and no student to serve: leaving (--connect-timeout-s {patience_s:g})"
            )

    def _enrol(self, message: Message, now: float, serving: bool) -> bool:
        """Whether a message of the coordinator ended a wait to join.

        A coordinator that was cut off from a whole group may have let another model take its place. It then
        refuses workers that come back; students that they serve know better.
        """
        try:
            return self._enrolment.on_message(message, now, self._clock.wall())
        except IncompatibleError as exc:
            if not serving:
                raise
            if not self._refused:
                logger.error("%s. Its students are served on, until they leave", exc)
            self._refused = True
            return False

    def _registration(self, rejoin: bool) -> Register:
        me, its = self._identity, self.fingerprint
        return Register(
            id=me.worker,
            role="teacher",
            group=me.teacher,
            links=list(self._students),
            process=me.process,
            host=me.host,
            pid=me.pid,
            wall_s=self._clock.wall(),
            fingerprint=its,
            device_type=me.device_type,
            attempt=me.attempt,
            info={
                "device": me.device,
                "batch_size": me.batch_size,
                "codec": str(its.codec),
                "version": its.version,
                "weights": its.weights,
                "rejoin": rejoin,
            },
        )
