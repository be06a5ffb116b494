"""Which kind of position a data loader has."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from edldist.sampling.composition import elastic_sampler
from edldist.sampling.counted import CountedPosition
from edldist.sampling.position import Position, Reseed, unseeded
from edldist.sampling.sampled import SampledPosition

__all__ = ["position_of"]


def position_of(
    data_loader: Iterable[Any],
    reseed: Reseed = unseeded,
    count: Callable[[Any], int] = len,
    weights_agreed: bool = False,
) -> Position:
    """The position that fits a data loader.

    Args:
        data_loader: any iterable of batches.
        reseed: see ``Reseed``.
        count: the number of samples of a batch.
        weights_agreed: whether the ranks agree in every step on how many samples each of them has.

    Raises:
        ConfigError: its ``ElasticSampler`` is wrapped in a way that cannot be followed.
    """
    sampler = elastic_sampler(data_loader)
    if sampler is not None:
        return SampledPosition(data_loader, sampler, reseed, weights_agreed)
    return CountedPosition(data_loader, reseed, count)
