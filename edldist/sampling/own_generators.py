"""Copies of the states of the random generators that a data loader has of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from edldist.errors import CheckpointError
from edldist.sampling.composition import components

__all__ = ["OwnGenerators"]


class OwnGenerators:
    """The ``torch.Generator``s that a data loader, its samplers and its data set draw from.

    An epoch's order is drawn from them when the epoch is opened, so their states at that moment belong to a
    position in the middle of it. A script makes them (``DataLoader(..., generator=g)``), or Accelerate does,
    so that all ranks shuffle alike.
    """

    def __init__(self, data_loader: Iterable[Any]) -> None:
        self._data_loader = data_loader

    def taken(self) -> list[Tensor]:
        """Their states as they are now, uint8 [bytes] each, on the host."""
        return [generator.get_state() for generator in self._found()]

    def load(self, states: Sequence[Tensor]) -> None:
        """Go to states that were taken.

        Raises:
            CheckpointError: they are those of another number of generators.
        """
        generators = list(self._found())
        if len(states) != len(generators):
            raise CheckpointError(
                f"the checkpoint holds the states of {len(states)} random generator(s) of the data loader, "
                f"which has {len(generators)} now, so its order would be another one: make it as it was made "
                "for the checkpoint"
            )
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)

    def _found(self) -> Iterator[torch.Generator]:
        seen: set[int] = set()
        for each in components(self._data_loader):
            generator = getattr(each.value, "generator", None)
            if isinstance(generator, torch.Generator) and id(generator) not in seen:
                seen.add(id(generator))
                yield generator
