"""Several simulated jobs on one fleet, each of which could take all of it: weights, priorities, overload.

What goes wrong is what goes wrong in a world of one job. When all is mended, workers part what they give by
the jobs' weights, the coordinator takes its steps against the overload, and everybody is done in the end.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from edldist.store.label_store import LabelStore
from tests.simulation.checkpoints import Checkpoints
from tests.simulation.setup import Setup
from tests.simulation.training import Training
from tests.simulation.world import World

__all__ = ["SharedWorld"]

_SETTLES_S = 25.0
"""After the last fault: until quarantines are over, and the coordinator has gone as far as it goes."""
_WINDOW_S = 20.0
_SHARE_OFF = 0.10
"""So much of all may a job lack that was not labelled as fast as it could have taken."""
_STARVES = 0.05
_LEAST_OF_ITS_SHARE = 0.25
"""Where workers serve some ranks alone, one with few workers holds up its job; none gets next to nothing."""


class Tenant:
    """The world as one of several jobs sees it: its own sizes, ranks and checkpoints; all else is shared."""

    store: LabelStore | None = None

    def __init__(self, world: SharedWorld, setup: Setup, number: int) -> None:
        self._world = world
        self.setup = setup
        self.seed = 8 * world.seed + number
        self.step_s = setup.step_s
        self.found = self.missed = 0
        self.checkpoints = Checkpoints(self)  # type: ignore[arg-type]
        self.training = Training(self, setup.nodes)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)


class SharedWorld(World):
    """Runs one seed of several jobs.

    Args:
        seed, only, tell: as of ``World``.
    """

    def __init__(
        self, seed: int, only: Sequence[int] | None = None, tell: Callable[[str], None] | None = None
    ) -> None:
        setups = Setup.draw_shared(random.Random(f"{seed}/shared"))
        # Of samples, the fleet knows those that the largest of the jobs has.
        fleet = replace(setups[0], samples=max(setup.samples for setup in setups))
        super().__init__(seed, only, tell, setup=fleet)
        self.checkpoints.close()  # each job has its own
        self.tenants = [Tenant(self, setup, number) for number, setup in enumerate(setups)]
        self.steps_of_overload = 0

    @property
    def trainings(self) -> Sequence[Training]:
        return [tenant.training for tenant in self.tenants]

    def _heal(self) -> None:
        super()._heal()
        for _ in range(self.setup.workers - len(self.workers)):
            self.start_worker(self.setup.teachers[0])

    def _finish(self) -> None:
        self.until(self.schedule.now + _SETTLES_S, lambda: False)
        before = {tenant.setup.job: (_taken(tenant), _starved(tenant)) for tenant in self.tenants}
        self.until(self.schedule.now + _WINDOW_S, lambda: False)
        self._check_shares(before)
        super()._finish()

    def _check_shares(self, before: dict[str, tuple[int, float]]) -> None:
        """Each job of the highest priority had its part of what was labelled, or all that it could take."""
        assert self.coordinator is not None
        server = self.coordinator.server
        self.steps_of_overload = int(server._shedding.step(self.setup.teachers[0]))
        top = max(tenant.setup.priority for tenant in self.tenants)
        jobs = [tenant for tenant in self.tenants if tenant.setup.priority == top]
        got = {tenant.setup.job: _taken(tenant) - before[tenant.setup.job][0] for tenant in self.tenants}
        weights = sum(tenant.setup.weight or 1 for tenant in jobs)
        links = [set(member.links) for member in server._members.members.values() if member.is_teacher]
        ranks = {rank.name for tenant in jobs for rank in tenant.training.ranks}
        everywhere = all(ranks <= served for served in links)
        self.note(f"in {_WINDOW_S:g} s of peace jobs took {got}, overload step {self.steps_of_overload}")
        for tenant in jobs:
            name, due = tenant.setup.job, (tenant.setup.weight or 1) / weights
            share = got[name] / max(1, sum(got.values()))
            starved = (_starved(tenant) - before[name][1]) / _WINDOW_S
            least = due - _SHARE_OFF if everywhere else _LEAST_OF_ITS_SHARE * due
            if starved > _STARVES and share < least:
                self.violate(
                    f"job {name} of weight {tenant.setup.weight} had {share:.3f} of all and waited for "
                    f"labels {starved:.0%} of the time; due were {due:.3f}: {got}"
                )


def _taken(tenant: Tenant) -> int:
    """Samples that a job's model has learnt from, those that a restored one learnt from again too."""
    return tenant.training.steps_computed * tenant.setup.global_batch


def _starved(tenant: Tenant) -> float:
    """Seconds that all ranks of a job have waited for labels.

    One rank alone waits where its workers are slower than those of the others: these wait for it in the step.
    """
    return min((rank.starved_s for rank in tenant.training.ranks), default=0.0)
