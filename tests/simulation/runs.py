"""Running one seed in this process."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import torch

from tests.simulation.shared_world import SharedWorld
from tests.simulation.world import Outcome, World

__all__ = ["fails", "run", "run_seed", "world_of"]


def world_of(shared: bool) -> type[World]:
    """A world of one job, or of several that share a fleet."""
    return SharedWorld if shared else World


def run(world: World) -> Outcome:
    """The whole story of a world."""
    torch.set_num_threads(1)
    gc.disable()  # a world is dropped as a whole: looking for cycles while it lives takes a tenth of the time
    try:
        return world.run()
    finally:
        gc.enable()
        gc.collect(1)


def run_seed(seed: int, only: Sequence[int] | None = None, shared: bool = False) -> Outcome:
    """The outcome of a seed, or of some faults of its plan."""
    return run(world_of(shared)(seed, only))


def fails(seed: int, only: Sequence[int], shared: bool = False) -> bool:
    """Whether some faults of a seed's plan are enough for a violation."""
    return bool(run_seed(seed, only, shared).violations)
