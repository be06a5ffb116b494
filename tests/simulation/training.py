"""The student's side of a job: groups of ranks that train in step, break, and form anew from a checkpoint."""

from __future__ import annotations

import random
import zlib
from typing import TYPE_CHECKING

from edldist.sampling.sampler import ElasticSampler
from tests.simulation.progress import Progress
from tests.simulation.rank import RankProcess

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Training"]


class Training:
    """One group of ranks at a time, one rank on each node.

    Attributes:
        nodes: that are there; the next group has a rank on each.
        target, not_before: at that step, and no earlier than then, the job is done.
        progress: of the model that lives in this group, or in the checkpoint from which the next will start.
    """

    def __init__(self, world: World, nodes: int) -> None:
        self.world = world
        self.nodes = nodes
        self.chance = random.Random(f"{world.seed}/training")
        self.generation = 0
        self.progress = Progress()
        self.ranks: list[RankProcess] = []
        self.target: int | None = None
        self.not_before = 0.0
        self.finished = False
        self.steps_computed = 0
        self.regroup_asked = False
        self._here: dict[int, tuple[list[int], bool]] = {}
        self._breaking = False
        self._order: dict[int, list[list[int]]] = {}

    # --- a group ----------------------------------------------------------------------------------

    def form(self) -> None:
        """A new group begins at the last checkpoint."""
        world = self.world
        if self.finished:
            return
        self.generation += 1
        self._here = {}
        self._breaking = False
        self.regroup_asked = False
        world.forget_deaths()
        found = world.checkpoints.restore()
        self.progress = found or Progress()
        size = self.nodes
        job = world.setup.job
        group = f"group{job}-{self.generation}" if size > 1 else ""
        world.note(f"group {self.generation} of {size} forms at step {self.progress.steps}")
        self.ranks = [
            RankProcess(world, self, f"{job}rank{rank}.{self.generation}", rank, size, group)
            for rank in range(size)
        ]
        for rank in self.ranks:
            rank.sampler.load_state_dict(
                rank.sampler.state_dict() | {"epoch": self.progress.epoch, "samples": self.progress.samples}
            )
            rank.begin()

    def ended(self, rank: RankProcess, reason: str) -> None:
        """A rank ends; the others find out in their next collective, and are started anew with it."""
        if rank.alive:
            rank.kill()
        if rank not in self.ranks:
            return
        self.world.note(f"{rank.name} ended: {reason}")
        if not self._breaking:
            self._breaking = True
            generation = self.generation
            self.world.schedule.after(self.chance.uniform(0.05, 1.0), lambda: self._break(generation))

    def ask_to_regroup(self) -> None:
        """A node joins: all ranks save at the next step, and leave."""
        self.regroup_asked = True

    def _break(self, generation: int) -> None:
        if generation != self.generation:
            return
        self._disband()
        self.world.schedule.after(self.chance.uniform(0.1, 1.0), self.form)

    def _disband(self) -> None:
        for rank in self.ranks:
            if rank.alive:
                rank.kill()
        self.ranks = []

    # --- a step -----------------------------------------------------------------------------------

    def arrived(self, rank: RankProcess, consumed: tuple[list[int], bool]) -> None:
        """A rank has its batch; the step begins when all have."""
        if rank not in self.ranks:
            return
        self._here[rank.rank] = consumed
        if len(self._here) == len(self.ranks):
            generation = self.generation
            seconds = self.world.step_s * self.chance.uniform(0.5, 1.5)
            self.world.schedule.after(seconds, lambda: self._stepped(generation))

    def _stepped(self, generation: int) -> None:
        if generation != self.generation or self._breaking or not self.ranks:
            return
        if any(rank.frozen for rank in self.ranks):  # the collective waits
            self.world.schedule.after(0.1, lambda: self._stepped(generation))
            return
        counted = [id_ for rank in range(len(self.ranks)) for id_ in self._here[rank][0]]
        self._count(counted)
        self._here = {}
        for rank in self.ranks:
            rank.at_barrier = False
            where = (rank.sampler.epoch, rank.sampler.samples)
            if where != (self.progress.epoch, self.progress.samples) and rank.sampler.samples != (
                self.world.setup.samples
            ):
                self.world.violate(f"{rank.name} is at {where}, the model at {self.progress}")
        self._after_step()

    def _after_step(self) -> None:
        world, steps = self.world, self.progress.steps
        done = self.target is not None and steps >= self.target and world.schedule.now >= self.not_before
        if (done or self.regroup_asked or steps % world.setup.checkpoint_every == 0) and (
            not world.checkpoints.save(self.progress)
        ):
            self.ended(self.ranks[0], "it was killed while it saved")
            return
        if done:
            self.finished = True
        if done or self.regroup_asked:
            for rank in self.ranks:
                rank.leave()
            self.ranks = []
            if not done:
                world.note("the ranks leave, for a node that joins")
                world.schedule.after(self.chance.uniform(0.1, 1.0), self.form)
            return
        for rank in self.ranks:
            rank.go_on()

    def _count(self, counted: list[int]) -> None:
        """The samples of one global batch count in the model: they must be exactly the next ones."""
        setup, progress = self.world.setup, self.progress
        epoch, samples = progress.epoch, progress.samples
        self.world.note(f"step {progress.steps} trains on samples {counted}")
        expected = self._batches(epoch)[samples // setup.global_batch]
        if counted != expected:
            self.world.violate(f"step {progress.steps} trained on {counted}, due were {expected}")
        samples += len(expected)
        if samples >= setup.samples:
            epoch, samples = epoch + 1, 0
        digest = zlib.crc32(repr(counted).encode(), progress.digest)
        self.progress = Progress(progress.steps + 1, epoch, samples, digest)
        self.steps_computed += 1

    def _batches(self, epoch: int) -> list[list[int]]:
        """The global batches of an epoch, which depend on the seed alone."""
        if epoch not in self._order:
            setup = self.world.setup
            sampler = ElasticSampler(
                setup.samples, setup.global_batch, seed=self.world.seed, rank=0, world_size=1
            )
            sampler.set_epoch(epoch)
            self._order[epoch] = list(sampler)
        return self._order[epoch]
