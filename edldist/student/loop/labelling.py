"""What a loop has to have to get labels at all: the student's service, and how labels are read."""

from __future__ import annotations

import atexit
import functools
import os
import socket
import uuid
import weakref
from collections.abc import Mapping

from edldist.clock import Clock, SystemClock
from edldist.environment import JobEnvironment
from edldist.errors import ConfigError
from edldist.keys.pair import STUDENT, TEACHER
from edldist.labels.fingerprint import Fingerprint
from edldist.lifecycle import exit_hooks, stopping
from edldist.observe.reporter import name_coordinator
from edldist.ranks.placement import Placement, placement, term
from edldist.store.label_store import LabelStore
from edldist.student.decoding.decoding import Decoding
from edldist.student.loop.endpoint import coordinator_of, endpoint
from edldist.student.loop.figures import LoopFigures
from edldist.student.loop.stored import Stored
from edldist.student.queue.flow import Flow
from edldist.student.service.options import ServiceOptions
from edldist.student.service.service import StudentService
from edldist.student.teachers.asked_teachers import AskedTeachers
from edldist.student.teachers.known_teachers import KnownTeachers
from edldist.wire.process import process_id
from edldist.wire.transport import Transport
from edldist.wire.zmq.keys import socket_keys
from edldist.wire.zmq.transport import ZmqTransport

__all__ = ["Labelling"]

NO_STORE = Stored()


def _close(service: StudentService, store: LabelStore | None) -> None:
    """Let go of the workers, and write what is kept in memory alone."""
    service.close()
    if store is not None and not service.forked:
        store.close()


class Labelling:
    """The service of one loop, from its arguments and what the job says, and what belongs to it.

    Args:
        called: the class that a script made, for what is said of it.
        asked: whose labels the loop asks for.
        flow: the queue's bounds.
        figures: what the loop counts.
        environment: what the job says.
        coordinator, heartbeat_ttl_s, agreement, transport: see ``DistillLoader``.
        checkpointed: whether the loop's state is to be in checkpoints.
        skip_poison, hand_on: which batches without labels are delivered (``ServiceOptions``).
        stored: the loop's store.

    Attributes:
        here: which rank this is.
        known: the teachers that the loop has learnt from.

    Raises:
        ConfigError: no coordinator is named, or an argument cannot be.
    """

    def __init__(
        self,
        called: str,
        asked: AskedTeachers,
        flow: Flow,
        figures: LoopFigures,
        environment: JobEnvironment,
        *,
        coordinator: str | None,
        heartbeat_ttl_s: float | None,
        agreement: Mapping[str, float] | str | None,
        checkpointed: bool,
        transport: Transport | None,
        skip_poison: bool = False,
        hand_on: bool = False,
        stored: Stored = NO_STORE,
    ) -> None:
        exit_hooks.install()
        self._called = called
        self._own_store = stored.own
        self._pid = os.getpid()
        self._named = coordinator if transport is None else None
        address = coordinator_of(coordinator, environment)
        translations = asked.translations(figures.translated)
        self.here: Placement = placement()
        run, generation = term()
        # Which version labelled last is a matter of timing, so ranks differ in that as well.
        by_rank = self.here.world_size > 1 and (asked.differ_by_rank or bool(asked.versions))
        self.known = KnownTeachers(asked.names, by_rank, environment.extend, asked.versions)
        self.clock: Clock = SystemClock()
        bind, advertise = endpoint(address, environment)
        self.service = StudentService(
            ServiceOptions(
                student=f"rank{self.here.rank}-{uuid.uuid4().hex[:10]}",
                teachers=asked.names,
                coordinator=address,
                bind=bind,
                advertise=advertise,
                flow=flow,
                called=called,
                heartbeat_ttl_s=(environment.heartbeat_ttl_s if heartbeat_ttl_s is None else heartbeat_ttl_s),
                connect_timeout_s=environment.connect_timeout_s,
                codecs=asked.codecs,
                versions=asked.versions,
                skip_after_s=asked.skip_after_s,
                one_set=asked.route is not None and asked.fallback is None,
                fallback=asked.fallback,
                translations=translations,
                agreement=environment.agreement_as(agreement),
                group=self.here.generation,
                run=run,
                generation=generation,
                job=environment.job or "",
                weight=environment.weight,
                priority=environment.priority,
                skip_poison=skip_poison,
                hand_on=hand_on,
                store=stored.use,
                info={
                    "rank": self.here.rank,
                    "world_size": self.here.world_size,
                    "checkpointed": checkpointed,
                },
            ),
            transport or ZmqTransport(keys=socket_keys(STUDENT, TEACHER)),
            self.clock,
            process=process_id(),
            host=socket.gethostname(),
            pid=self._pid,
        )
        self.service.extra_stats = figures.as_stats
        self.service.delivery.stages["starved"] = figures.waits
        self.decoding = Decoding(asked, self.service.codec, translations)

    def start(self, owner: object) -> weakref.finalize[[], object]:
        """Serve, until the owner is gone, the process ends, or what is returned is called."""
        self.service.start()
        finalizer = weakref.finalize(owner, functools.partial(_close, self.service, self._own_store))
        # weakref's own exit handler may be older than pyzmq's, and come too late (see wire.zmq.poller).
        atexit.register(finalizer)
        stopping.at_partial_stop(finalizer)
        if self._named is not None:
            name_coordinator(self._named)
        return finalizer

    def expect(self, former: Mapping[str, Fingerprint]) -> None:
        """A saved state was gone to, and nothing was read since what was read before is forgotten.

        Args:
            former: the teachers that labelled for it: no others are taken, unless the run extends it.
        """
        if only := self.known.restored(former):
            self.service.expect(only)

    @property
    def forked(self) -> bool:
        """Whether this process is another one than that whose service it is, and has no thread for it."""
        return os.getpid() != self._pid

    def check_process(self) -> None:
        """Refuse to work in a forked process.

        Raises:
            ConfigError: it is one.
        """
        if self.forked:
            raise ConfigError(
                f"this {self._called} was made by process {self._pid}, and process {os.getpid()} was forked "
                "from it: labels come to the one that made it, whose connections and threads are not here. "
                "Use it there, or make another one here"
            )
