"""How torchrun's agents meet here: rendezvous handlers of torch's own interface.

``CoordinatorRendezvous`` lets the coordinator decide who is in a generation (its module of the same name says
how). ``LoneRendezvous`` is for the only node of a run, which meets nobody.

No port is opened for it, and nothing is unpickled. The ranks of a generation meet as torch wants it, at a
``TCPStore``, which the agent of the first node serves on its loopback interface (``rank_store``). Ranks of
other nodes reach it through a door that lets nodes of the run in alone (``store_door``), whose port stands
since before the generation formed.
"""

from __future__ import annotations

import logging
import os
import sys
import time

import msgspec
from torch.distributed import HashStore
from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousStoreInfo,
)

from edldist.meeting.attendance import Attendance
from edldist.meeting.rank_store import LOOPBACK, RankStore
from edldist.meeting.store_door import Door, Way, new_word
from edldist.ranks.placement import GENERATION_VARIABLE, generation_name
from edldist.wire.messages import Generation, GroupNode, NodeReport, RunView
from edldist.wire.process import process_id
from edldist_launch.node.agent import BACKEND
from edldist_launch.node.generation_table import GenerationTable

__all__ = ["CompleteError", "CoordinatorRendezvous", "LoneRendezvous"]

logger = logging.getLogger(__name__)

SAY_AFTER_S = 5.0
SAY_EVERY_S = 30.0
GOODBYE_S = 2.0
ABSENT_S = 10.0
YOUNG_S = 120.0
"""A generation that lost a node while it was at most ``YOUNG_S`` old is left after ``ABSENT_S``. Ranks notice
a loss by themselves, unless the other's had not begun: they would wait for these for torch's half an hour."""
_SLICE_S = 1.0
_SHOWN_OF_LONE_RUN = 60


class CompleteError(RendezvousClosedError):
    """The run has ended without this node, which came too late, or was not in its last generation."""


class LoneRendezvous(RendezvousHandler):
    """The only node of a run.

    Args:
        run_id: of the run.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._store: RankStore | None = None
        self._rounds = 0
        # Nobody but this agent counts them: to another one's, of the same command, they are not to be
        # compared.
        self._own_count = f"{run_id[:_SHOWN_OF_LONE_RUN]}@{process_id()}"

    def get_backend(self) -> str:
        return BACKEND

    @property
    def use_agent_store(self) -> bool:
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        self.shutdown()
        self._store = RankStore()
        self._rounds += 1
        os.environ[GENERATION_VARIABLE] = generation_name(self._own_count, self._rounds, process_id())
        return RendezvousInfo(HashStore(), 0, 1, RendezvousStoreInfo(LOOPBACK, self._store.port))

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        pass

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return self._run_id

    def shutdown(self) -> bool:
        if self._store is not None:
            self._store.close()
        return True


class CoordinatorRendezvous(RendezvousHandler):
    """One node of a run whose nodes meet at a coordinator. For the agent's main thread.

    A coordinator that is gone is missed only by ``next_rendezvous``, which waits for it.

    Args:
        coordinator: ``tcp://host:port``, or ``file:PATH`` (``address_file``).
        run_id: of the run.
        job: what the run is, so that another one with the same id is refused.
        nodes: fewest and most of a generation.
        local_host: where ranks of other nodes reach this one.
        ranks: of this node.
        connect_timeout_s: how long to wait for a coordinator that does not answer.
    """

    def __init__(
        self,
        coordinator: str,
        run_id: str,
        job: str,
        nodes: tuple[int, int],
        local_host: str,
        ranks: int,
        connect_timeout_s: float,
    ) -> None:
        self._coordinator = coordinator
        self._connect_timeout_s = connect_timeout_s
        self._generation: Generation | None = None
        self._formed_at = 0.0
        self._absent_since: float | None = None
        self._store: RankStore | None = None
        self._way: Way | None = None
        self._door = self._new_door()
        port, word = self._door.port, self._door.word
        report = NodeReport(
            run=run_id,
            job=job,
            node=GroupNode(process=process_id(), host=local_host, port=port, ranks=ranks, door=word),
            least=nodes[0],
            most=nodes[1],
            state="joining",
            seq=1,
        )
        self._attendance = Attendance(coordinator, report)
        self._attendance.start()

    def get_backend(self) -> str:
        return BACKEND

    @property
    def use_agent_store(self) -> bool:
        return True

    def get_run_id(self) -> str:
        return self._attendance.report.run

    def next_rendezvous(self) -> RendezvousInfo:
        """Join the next generation.

        Raises:
            CompleteError: the run was completed by others.
            RendezvousClosedError: the run has ended, and this node's part of it failed.
            RendezvousConnectionError: no coordinator answered for ``connect_timeout_s``.
            RendezvousError: the coordinator refuses this node.
        """
        generation = self._join()
        self._generation, self._formed_at, self._absent_since = generation, time.monotonic(), None
        self._attendance.tell(state="member", generation=generation)
        node, first = self._attendance.report.node, generation.nodes[0]
        rank = [other.process for other in generation.nodes].index(node.process)
        # The agent may leave out counting the ranks of all nodes where every node has as many.
        same = all(other.ranks == node.ranks for other in generation.nodes)
        os.environ["TORCH_ELASTIC_WORKER_IDENTICAL"] = str(int(same))
        run = self._attendance.report.run
        os.environ[GENERATION_VARIABLE] = generation_name(run, generation.number, first.process)
        return RendezvousInfo(
            GenerationTable(self._attendance, generation),
            rank,
            len(generation.nodes),
            RendezvousStoreInfo(LOOPBACK, self._meeting_port(rank, first)),
        )

    def _meeting_port(self, rank: int, first: GroupNode) -> int:
        """Where this node's ranks find the generation's store: on this machine, whichever node has it."""
        if rank == 0:
            self._store = RankStore()
            return self._store.port
        self._way = Way(first.host, first.port, first.door)
        return self._way.port

    def _new_door(self) -> Door:
        return Door(new_word(), lambda: None if self._store is None else self._store.port)

    def _close_store(self) -> None:
        self._door.close()
        if self._way is not None:
            self._way.close()
        if self._store is not None:
            self._store.close()
        self._way = self._store = None

    def _join(self) -> Generation:
        former = self._generation
        if former is not None:
            self._close_store()
            self._door = self._new_door()
            node = self._attendance.report.node
            self._attendance.tell(
                state="joining",
                node=msgspec.structs.replace(node, port=self._door.port, door=self._door.word),
                values={},
                counts={},
            )
        process = self._attendance.report.node.process

        def joined(view: RunView) -> bool:
            if view.refused:
                raise RendezvousError(f"the coordinator refuses this node: {view.refused}")
            found = view.generation
            if view.closed and found is not None and any(node.process == process for node in found.nodes):
                raise RendezvousClosedError(f"run {view.run} has ended")
            if view.closed:
                raise CompleteError(f"run {view.run} is complete: other nodes have finished it")
            newer = found is not None and (former is None or found.number > former.number)
            return newer and any(node.process == process for node in found.nodes)  # type: ignore[union-attr]

        began = time.monotonic()
        say_at = began + SAY_AFTER_S
        while (view := self._attendance.wait(joined, _SLICE_S)) is None:
            waited_s = time.monotonic() - began
            silent_s = min(self._attendance.silent_s, waited_s)
            if silent_s > self._connect_timeout_s:
                raise RendezvousConnectionError(
                    f"no coordinator answered at {self._coordinator} for {silent_s:.0f} s"
                )
            if time.monotonic() >= say_at:
                say_at = time.monotonic() + SAY_EVERY_S
                logger.warning(
                    "waiting for %s nodes of run %s for %.0f s%s",
                    *(self._attendance.report.least, self._attendance.report.run, waited_s),
                    f"; the coordinator has been silent for {silent_s:.0f} s" if silent_s > 3 else "",
                )
        assert view.generation is not None
        return view.generation

    def num_nodes_waiting(self) -> int:
        """How many nodes would be in the next generation and are not in this one.

        1 as well if that exists already, or if one of this is gone that may never have started its ranks.
        """
        view = self._attendance.answer  # an older view may be that of another generation
        if view is None or view.generation is None or self._generation is None:
            return 0
        if not view.generation.same(self._generation):
            return 1
        return view.waiting or int(self._lacks_one(bool(view.gone), time.monotonic()))

    def _lacks_one(self, gone: bool, now: float) -> bool:
        if not gone:
            self._absent_since = None
        elif self._absent_since is None:
            self._absent_since = now
        if self._absent_since is None or self._absent_since - self._formed_at > YOUNG_S:
            return False
        return now - self._absent_since > ABSENT_S

    def is_closed(self) -> bool:
        view = self._attendance.view
        return view is not None and view.closed

    def set_closed(self) -> None:
        """Only the coordinator knows when a run has ended."""

    def shutdown(self) -> bool:
        """Say that this node's part is done; called while an error passes through: that it is not."""
        self._end("finished" if sys.exc_info()[0] is None else "left")
        return True

    def leave(self) -> None:
        """Say that this node goes, unless it said so before."""
        if self._attendance.report.state in ("joining", "member"):
            self._end("left")

    def _end(self, state: str) -> None:
        self._attendance.tell(state=state)
        if self._attendance.wait(lambda view: True, GOODBYE_S) is None:
            logger.warning(
                "the coordinator at %s did not hear that this node has %s", self._coordinator, state
            )
        self._attendance.close()
        self._close_store()
