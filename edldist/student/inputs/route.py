"""Which one of several teachers labels each sample of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edldist.errors import ConfigError, InputError

__all__ = ["Owners", "Route", "RouteKey"]

RouteKey = str | int | Callable[[Any], Any]
"""What names the teachers of a batch's samples: its key or index, or a function of the batch."""

Owners = NDArray[np.intp]
"""For each sample of a batch, which of the teachers labels it, by its place among them."""


class Route:
    """Reads from a batch where each of its samples goes.

    Args:
        route: what holds one teacher for each sample: its name, or its place among ``teachers``.
        teachers: their names.

    Raises:
        ConfigError: that cannot be, or there is nothing to choose from.
    """

    def __init__(self, route: RouteKey, teachers: Sequence[str]) -> None:
        if isinstance(route, bool) or not (callable(route) or isinstance(route, (str, int))) or route == "":
            raise ConfigError(f"route={route!r}: use a key, an index, or a function of the batch")
        if len(teachers) < 2:
            raise ConfigError(
                f"route={_named(route)}: there is one teacher, {teachers[0]!r}: samples go to one of "
                "several, teacher=[...]"
            )
        self._route = route
        self._teachers = list(teachers)
        self._places = {name: place for place, name in enumerate(teachers)}

    def __call__(self, batch: Any, samples: int, pick: Callable[[Any, str | int], Any]) -> Owners:
        """Which teacher each sample goes to.

        Args:
            samples: how many there are.
            pick: the entry of a batch of some key.

        Raises:
            InputError: there are more or fewer entries than samples, or one names no teacher.
        """
        route = self._route
        given = route(batch) if callable(route) else pick(batch, route)
        entries = given
        if isinstance(given, Tensor | np.ndarray):
            if given.ndim != 1:
                raise InputError(
                    f"route={_named(route)} gives shape {list(given.shape)}: it must be [{samples}], one "
                    "entry for each sample"
                )
            entries = given.tolist()
        if not isinstance(entries, (list, tuple)):
            raise InputError(
                f"route={_named(route)} gives {type(given).__name__}: it must give a list of teachers' "
                "names, or integers that count them from 0, one for each sample"
            )
        if len(entries) != samples:
            raise InputError(
                f"route={_named(route)} gives {len(entries)} entries for {samples} samples: one for each"
            )
        return np.fromiter((self._place(*entry) for entry in enumerate(entries)), np.intp, samples)

    def _place(self, sample: int, entry: Any) -> int:
        if isinstance(entry, str):
            place = self._places.get(entry)
            if place is not None:
                return place
        elif isinstance(entry, int) and not isinstance(entry, bool) and 0 <= entry < len(self._teachers):
            return entry
        raise InputError(
            f"route={_named(self._route)} gives sample {sample} to {entry!r}, and the teachers are "
            f"{', '.join(map(repr, self._teachers[:20]))}{' ...' if len(self._teachers) > 20 else ''} "
            f"(or 0 to {len(self._teachers) - 1})"
        )


def _named(route: RouteKey) -> str:
    return getattr(route, "__qualname__", "a function") if callable(route) else repr(route)
