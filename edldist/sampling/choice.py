"""Which kind of position a data loader has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edldist.sampling.counted import CountedPosition
from edldist.sampling.look_ahead import elastic_sampler
from edldist.sampling.position import Position, Reseed, unseeded
from edldist.sampling.sampled import SampledPosition

__all__ = ["position_of"]


def position_of(data_loader: Iterable[Any], reseed: Reseed = unseeded) -> Position:
    """The position that fits a data loader."""
    sampler = elastic_sampler(data_loader)
    if sampler is not None:
        return SampledPosition(data_loader, sampler, reseed)
    return CountedPosition(data_loader, reseed)
