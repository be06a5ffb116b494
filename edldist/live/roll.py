"""This rank's place in its run, from generation to generation: what the coordinator says, and where all meet.

The coordinator decides (``edldist.coordinator.rendezvous``), with a rank where other runs have a node. One
that died is told of by the supervisor of its node at once; one that is frozen, or cut off, by its silence.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

from torch.distributed import PrefixStore, Store, TCPStore

from edldist.errors import CoordinatorUnreachableError
from edldist.live.membership import Membership
from edldist.live.terms import LiveTerms
from edldist.meeting.attendance import Attendance
from edldist.meeting.rank_store import LOOPBACK, RankStore
from edldist.meeting.store_door import Door, Way, new_word
from edldist.ranks.placement import GENERATION_VARIABLE, generation_name
from edldist.wire.messages import Generation, GroupNode, NodeReport
from edldist.wire.process import process_id

__all__ = ["Meeting", "Roll"]

logger = logging.getLogger(__name__)

_SLICE_S = 1.0
_SAY_AFTER_S = 5.0
_SAY_EVERY_S = 30.0
_GOODBYE_S = 2.0
_MEET = timedelta(seconds=10)
"""For ranks that are all there, told of each other at the same moment."""


class Meeting(NamedTuple):
    """Where the ranks of a generation make their process group.

    Attributes:
        number: of the generation.
        rank: of this process in it.
        members: names of their processes, by rank.
        connect: to a store that all of them reach, for them alone; for another thread, as it may block.
    """

    number: int
    rank: int
    members: tuple[str, ...]
    connect: Callable[[], Store]


class Roll:
    """One rank's part in a run. For the training thread; another one reports (``Attendance``).

    Args:
        terms: of the run.
        heard: called by the thread that reports, when the coordinator said something, or never will again.

    Attributes:
        membership: in which generation this rank is.
    """

    def __init__(self, terms: LiveTerms, heard: Callable[[], None]) -> None:
        self._terms = terms
        self._way: Way | None = None
        self._store = RankStore()
        self._door: Door | None = None
        host, port, word = LOOPBACK, self._store.port, ""
        if terms.host is not None:
            self._door = Door(new_word(), lambda: self._store.port)
            host, port, word = terms.host, self._door.port, self._door.word
        report = NodeReport(
            run=terms.run,
            job=terms.job,
            node=GroupNode(process=process_id(), host=host, port=port, ranks=1, door=word),
            least=terms.least,
            most=terms.most,
            state="joining",
            seq=1,
            live=True,
        )
        try:
            self._attendance = Attendance(terms.coordinator, report, heard=heard)
        except BaseException:
            self._close()
            raise
        self.membership = Membership(self._attendance)
        self._attendance.start()

    def join(self) -> Meeting:
        """Be in the next generation.

        Raises:
            RunOverError: the others have finished the run.
            CoordinatorUnreachableError: no coordinator answered for ``connect_timeout_s``.
            EdlDistError: the coordinator refuses this rank.
        """
        self.membership.rejoin()
        if self._way is not None:
            self._way.close()
            self._way = None
        generation = self._await_next()
        rank = self.membership.enter(generation)
        first = generation.nodes[0]
        port = self._store.port
        if rank and self._terms.host is not None:
            self._way = Way(first.host, first.port, first.door)
            port = self._way.port
        elif rank:
            port = first.port
        os.environ[GENERATION_VARIABLE] = generation_name(self._terms.run, generation.number, first.process)
        os.environ.update(
            MASTER_ADDR=first.host,
            MASTER_PORT=str(first.port),
            RANK=str(rank),
            WORLD_SIZE=str(len(generation.nodes)),
        )

        def connect() -> Store:
            store = TCPStore(LOOPBACK, port, is_master=False, timeout=_MEET)
            return PrefixStore(f"{generation.token}/{generation.number}", store)

        members = tuple(node.process for node in generation.nodes)
        return Meeting(generation.number, rank, members, connect)

    def end(self, state: str) -> None:
        """Say that this rank's part is done (``finished``), or that it goes (``left``)."""
        self._attendance.tell(state=state)
        if self._attendance.wait(lambda view: True, _GOODBYE_S) is None:
            logger.warning(
                "the coordinator at %s did not hear that this rank has %s", self._terms.coordinator, state
            )
        self._attendance.close()
        self._close()

    def _close(self) -> None:
        """Serve no store any more, and end every way to one."""
        for part in (self._way, self._door, self._store):
            if part is not None:
                part.close()

    def _await_next(self) -> Generation:
        began = time.monotonic()
        say_at = began + _SAY_AFTER_S
        while (view := self._attendance.wait(self.membership.invited, _SLICE_S)) is None:
            waited_s = time.monotonic() - began
            silent_s = min(self._attendance.silent_s, waited_s)
            if silent_s > self._terms.connect_timeout_s:
                raise CoordinatorUnreachableError(
                    f"no coordinator answered at {self._terms.coordinator} for {silent_s:.0f} s"
                )
            if time.monotonic() >= say_at:
                say_at = time.monotonic() + _SAY_EVERY_S
                logger.warning("waiting for the other ranks of run %s for %.0f s", self._terms.run, waited_s)
        assert view.generation is not None
        return view.generation
