"""The student's side of a live job: ranks that die, freeze and join, and nobody else starts again.

Collectives are played as gloo's are: one that has lost a rank fails on the others, each at a moment of its
own, and one that was complete may have been so on some ranks only. Who is in which generation the real
coordinator says; who hands its state to whom is decided by the code of ``edldist.live``.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from edldist.live.handover import behind_whom
from edldist.wire.messages import Generation
from tests.simulation.member import LiveRank, Member
from tests.simulation.progress import Progress
from tests.simulation.rank import RankProcess
from tests.simulation.training import Training

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["LiveTraining"]

_TOLD_SHARE = 0.7
"""So often there is a supervisor left that says of a dead process that it is gone."""


_SLOW_SHARE, _SLOW_S = 0.3, 0.4
"""So often a rank is late to hear what a collective came to, as on a busy machine; others may die by then."""


class _Group:
    """The ranks of one generation, and how far they are with what they do together."""

    def __init__(self, generation: Generation, members: list[Member]) -> None:
        self.generation = generation
        self.members = members
        self.met: set[Member] = set()
        self.here: dict[int, list[int]] = {}
        self.makes_room = False
        """Whether all of them know since the last step that ranks want to join."""

    @property
    def whole(self) -> bool:
        return all(self.has(member) for member in self.members)

    def has(self, member: Member) -> bool:
        """Whether a member lives, and has not left this generation."""
        return member.alive and self.generation.same(member.generation)


class LiveTraining(Training):
    """Processes that each know by themselves how far they are. ``ranks``: those that train now."""

    def __init__(self, world: World, nodes: int) -> None:
        super().__init__(world, nodes)
        self._members: dict[str, Member] = {}
        self._groups: dict[tuple[int, str], _Group] = {}
        self._started = 0
        self._finishing = False

    @property
    def living(self) -> list[Member]:
        return [member for member in self._members.values() if member.alive]

    # --- processes come and go --------------------------------------------------------------------------

    def form(self) -> None:
        for _ in range(self.nodes):
            self._start()

    def ask_to_regroup(self) -> None:
        """A node joins: its rank prepares itself, and the others go on meanwhile."""
        self._later(0.1, 1.0, self._start)

    def _start(self) -> None:
        if self.finished or self._finishing or len(self.living) >= self.nodes:
            return
        self._started += 1
        member = Member(self.world, self, self._started)
        self._members[member.name] = member
        self.world.note(f"{member.name} starts")

    def ended(self, rank: RankProcess, reason: str) -> None:
        assert isinstance(rank, LiveRank)
        self.died(rank.member, reason)

    def died(self, member: Member, reason: str) -> None:
        """A process has ended before its work was done; another is started in its place."""
        if member.name not in self._members:
            return
        self.world.note(f"{member.name} ended: {reason}")
        if member.alive:
            member.kill()
        told = member.said_gone()
        if self.chance.random() < _TOLD_SHARE:
            address = self.world.coordinator_address
            self._later(0.01, 0.1, lambda: self.world.stranger(address).send(told))
        self.gone(member)
        self._later(0.5, 2.0, self._start)

    def gone(self, member: Member) -> None:
        """A process is no more."""
        self._members.pop(member.name, None)
        self._list()
        for group in self._groups.values():
            if member in group.members:
                self._break(group)
        if self._finishing and not self._members:
            self.finished = True

    def _list(self) -> None:
        self.ranks = [member.rank for member in self.living if member.rank is not None]

    def _break(self, group: _Group) -> None:  # type: ignore[override]
        """An operation of the others fails, on each of them at its own moment."""
        for member in group.members:
            if group.has(member):
                self._later(0.0, 0.05, lambda member=member: self._fail(group, member))

    def _fail(self, group: _Group, member: Member) -> None:
        if group.has(member) and not member.frozen:
            member.rejoin("a rank cannot be reached")
            self._list()

    # --- a generation forms -----------------------------------------------------------------------------

    def entered(self, member: Member) -> None:
        """A process was told that it is in a generation."""
        generation = member.generation
        assert generation is not None
        key = (generation.number, generation.token)
        if key not in self._groups:
            members = [self._members.get(node.process) for node in generation.nodes]
            if None in members:
                return  # it waits for one that is dead, until it is told so
            self._groups[key] = _Group(generation, [each for each in members if each is not None])
        group = self._groups[key]
        group.met.add(member)
        if len(group.met) == len(group.members):
            self._later(0.002, 0.02, lambda: self._hand_over(group))

    def _hand_over(self, group: _Group) -> None:
        if not group.whole:
            self._break(group)
            return
        if any(member.frozen for member in group.members):
            self._later(0.1, 0.1, lambda: self._hand_over(group))
            return
        known = [member.progress for member in group.members]
        source, behind = behind_whom([(-1, 0) if p is None else (p.steps, p.digest) for p in known])
        furthest = known[source]
        if furthest is None:  # all are new: the floor
            furthest = self.world.checkpoints.restore() or Progress()
        self.generation += 1
        self.world.note(f"generation {group.generation.number} of {len(known)} goes on at {furthest}")
        for place, member in enumerate(group.members):
            needs = place in behind or known[place] is None
            self._each(
                group, member, lambda member=member, needs=needs: self._begin(group, member, furthest, needs)
            )

    def _begin(self, group: _Group, member: Member, progress: Progress, needs: bool) -> None:
        """A member has what it needs, if nobody died meanwhile, and makes its loader."""
        world = self.world
        if needs and not group.whole and self.chance.random() < 0.5:
            self._fail(group, member)
            return
        if needs:
            member.progress = progress
        if member.progress != progress:
            world.violate(f"{member.name} is at {member.progress} beside others at {progress}")
        world.forget_deaths()
        rank = member.rank = LiveRank(world, self, member, group.generation, group.members.index(member))
        at = {"epoch": progress.epoch, "samples": progress.samples}
        rank.sampler.load_state_dict(rank.sampler.state_dict() | at)
        self._list()
        rank.begin()

    # --- a step -------------------------------------------------------------------------------------------

    def arrived(self, rank: RankProcess, consumed: tuple[list[int], bool]) -> None:
        assert isinstance(rank, LiveRank)
        member = rank.member
        generation = member.generation
        if member.rank is not rank or generation is None:
            return
        group = self._groups[generation.number, generation.token]
        if group.makes_room:
            member.rejoin("ranks want to join")
            self._list()
            return
        group.here[rank.rank] = consumed[0]
        if len(group.here) == len(group.members):
            seconds = self.world.step_s * self.chance.uniform(0.5, 1.5)
            self.world.schedule.after(seconds, lambda: self._step(group))

    def _step(self, group: _Group) -> None:
        if not group.whole:
            self._break(group)
            return
        if any(member.frozen for member in group.members):  # the collective waits
            self._later(0.1, 0.1, lambda: self._step(group))
            return
        stands = {member.progress for member in group.members}
        if len(stands) > 1:
            self.world.violate(f"ranks of one generation are at {stands}")
        before = stands.pop()
        assert before is not None
        counted = [id_ for rank in range(len(group.members)) for id_ in group.here[rank]]
        group.here = {}
        after = self._after(before, counted)
        group.makes_room = any(member.membership.waiting for member in group.members)
        schedule = self.world.schedule
        done = self.target is not None and after.steps >= self.target and schedule.now >= self.not_before
        for member in group.members:
            self._each(group, member, lambda member=member: self._apply(group, member, before, after, done))

    def _after(self, before: Progress, counted: list[int]) -> Progress:
        """What a global batch makes of the model: it must be exactly the next one."""
        setup = self.world.setup
        self.world.note(f"step {before.steps} trains on samples {counted}")
        expected = self._batches(before.epoch)[before.samples // setup.global_batch]
        if counted != expected:
            self.world.violate(f"step {before.steps} trained on {counted}, due were {expected}")
        epoch, samples = before.epoch, before.samples + len(expected)
        if samples >= setup.samples:
            epoch, samples = epoch + 1, 0
        self.steps_computed += 1
        return Progress(before.steps + 1, epoch, samples, zlib.crc32(repr(counted).encode(), before.digest))

    def _apply(self, group: _Group, member: Member, before: Progress, after: Progress, done: bool) -> None:
        """The gradients of all have come to this member, or the news that one is gone."""
        rank = member.rank
        assert rank is not None
        if not group.whole and self.chance.random() < 0.5:
            self._fail(group, member)
            return
        if member.progress != before:
            self.world.violate(f"{member.name} takes a step of {before}, and is at {member.progress}")
        member.progress = after
        if after.steps > self.progress.steps:
            self.progress = after
        rank.at_barrier = False
        due = done or after.steps % self.world.setup.checkpoint_every == 0
        if rank.rank == 0 and due and not self.world.checkpoints.save(after):
            self.died(member, "it was killed while it saved")
        elif done:
            self._finishing = True
            member.finish()
            self._list()
        else:
            rank.go_on()

    def _each(self, group: _Group, member: Member, what: Callable[[], None]) -> None:
        """What a collective comes to on one of its ranks, at a moment of its own, if that is still in it."""

        def then() -> None:
            if not group.has(member):
                return
            if member.frozen:
                self._later(0.05, 0.1, then)
            else:
                what()

        slow = self.chance.random() < _SLOW_SHARE
        self._later(0.0, _SLOW_S if slow else 0.02, then)

    def _later(self, low_s: float, high_s: float, what: Callable[[], None]) -> None:
        self.world.schedule.after(self.chance.uniform(low_s, high_s), what)
