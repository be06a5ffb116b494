"""Running one seed in this process."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import torch

from tests.simulation.world import Outcome, World

__all__ = ["fails", "run_seed"]


def run_seed(seed: int, only: Sequence[int] | None = None) -> Outcome:
    """The outcome of a seed, or of some faults of its plan."""
    torch.set_num_threads(1)
    gc.disable()  # a world is dropped as a whole: looking for cycles while it lives takes a tenth of the time
    try:
        return World(seed, only).run()
    finally:
        gc.enable()
        gc.collect(1)


def fails(seed: int, only: Sequence[int]) -> bool:
    """Whether some faults of a seed's plan are enough for a violation."""
    return bool(run_seed(seed, only).violations)
