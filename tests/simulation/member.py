"""A training process that goes on when its group changes: real reports and membership, a played loop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from edldist.errors import EdlDistError
from edldist.live.membership import Membership, RunOverError
from edldist.meeting.attendance import Attendance
from edldist.ranks.placement import generation_name
from edldist.wire.messages import Generation, GroupNode, NodeReport
from tests.simulation.coordinator import coordinator_place
from tests.simulation.process import Actor, Process
from tests.simulation.progress import Progress
from tests.simulation.rank import RankProcess

if TYPE_CHECKING:
    from edldist.lifecycle.group_change import GroupChanged
    from tests.simulation.live import LiveTraining
    from tests.simulation.world import World

__all__ = ["LiveRank", "Member"]

RUN = "live"
_MOST_RANKS = 8
_LOOK_S = 0.5
_GOODBYE_S = 2.0


class Member(Process):
    """One process of a live run, from generation to generation.

    Attributes:
        progress: of the model in its memory; None before it has one.
        rank: its part in the generation that it trains in; None while it joins one.
    """

    def __init__(self, world: World, training: LiveTraining, number: int) -> None:
        super().__init__(world, f"member{number}")
        self.training = training
        self.progress: Progress | None = None
        self.rank: LiveRank | None = None
        self._done_by = math.inf
        report = NodeReport(
            run=RUN,
            job="job",
            node=GroupNode(process=self.name, host=self.name, port=1, ranks=1),
            least=1,
            most=_MOST_RANKS,
            state="joining",
            seq=1,
            live=True,
        )
        place = coordinator_place(world)
        self._trainer = Actor(self, f"{self.name} trains", self._turn)
        self.attendance = Attendance(place, report, self.transport, self.clock, self._trainer.ring)
        self.membership = Membership(self.attendance, self.name)
        self.reader = Actor(self, f"{self.name} reports", self.attendance.turn, reads=True)
        self.ring()
        self._trainer.ring()

    @property
    def generation(self) -> Generation | None:
        """The one that it is in; None while it joins another."""
        report = self.attendance.report
        return report.generation if report.state == "member" else None

    def said_gone(self) -> NodeReport:
        """What its node's supervisor says when it has died."""
        return msgspec.structs.replace(self.attendance.report, state="left", seq=1 << 53)

    def _turn(self, now: float) -> float:
        """What a ``LiveGroup`` does where it waits."""
        if self._done_by < math.inf:
            return self._say_goodbye(now)
        if self.generation is not None:
            if reason := self.membership.lost():
                self.rejoin(reason)
            return now + _LOOK_S
        view = self.attendance.answer
        if view is not None and self.membership.invited(view):
            assert view.generation is not None
            self.membership.enter(view.generation)
            self.training.entered(self)
        return now + _LOOK_S

    def rejoin(self, reason: str) -> None:
        """The block of its generation ends, and it wants to be in the next."""
        self.world.note(f"{self.name} rejoins: {reason}")
        self._leave_rank()
        self.membership.rejoin()

    def finish(self) -> None:
        """Its work is done."""
        self._leave_rank()
        self._done_by = self.clock.monotonic() + _GOODBYE_S
        self.attendance.tell(state="finished")

    def _say_goodbye(self, now: float) -> float:
        if self.attendance.answer is None and now < self._done_by:
            return self._done_by
        self._end()
        return math.inf

    def _end(self) -> None:
        self.attendance.leave()
        self.alive = False
        self.training.gone(self)

    def _leave_rank(self) -> None:
        rank, self.rank = self.rank, None
        if rank is not None and rank.alive:
            rank.leave()

    def kill(self) -> None:
        super().kill()
        rank, self.rank = self.rank, None
        if rank is not None:
            Process.kill(rank)

    def failed(self, actor: str, error: Exception) -> None:
        if isinstance(error, RunOverError):
            self._end()
            return
        if not isinstance(error, EdlDistError):
            self.world.violate(f"{actor} raised {error!r}", error)
        self.training.died(self, f"{actor}: {error}")


class LiveRank(RankProcess):
    """A member's loader in one generation; a fault that hits it hits the member."""

    def __init__(
        self, world: World, training: LiveTraining, member: Member, generation: Generation, rank: int
    ) -> None:
        first = generation.nodes[0].process
        group = f"{generation_name(RUN, generation.number, first)}@{first}:1"
        size = len(generation.nodes)
        name = f"{member.name}.{generation.number}.{generation.token}"
        self.member = member
        super().__init__(world, training, name, rank, size, group if size > 1 else "")

    @property
    def reporter(self) -> Process:
        return self.member

    def freeze(self) -> None:
        super().freeze()
        self.member.freeze()

    def thaw(self) -> None:
        super().thaw()
        self.member.thaw()

    def kill(self) -> None:
        super().kill()
        if self.member.rank is self:
            self.member.kill()

    def _changed(self, change: GroupChanged) -> None:
        self.world.note(f"{self.name} heard that {change.reason}")
