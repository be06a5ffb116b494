"""Points of a space as rows of numbers from 0 to 1, one a key, and as what a model is given. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edldist_launch.tune.space import Choices, Range, Space

__all__ = ["Cube", "Floats"]

Floats = NDArray[np.float64]
DIGITS = 4
"""Significant ones of a value that is tried: it is read, and typed, by people."""


class Cube:
    """The unit cube of a space: ``K`` keys, each a number from 0 to 1.

    A range maps to its place between the bounds (of the logarithms, with ``log``), choices to equal parts of
    the line. Only *snapped* points stand for values: whole numbers, four digits, the middle of a choice.
    """

    def __init__(self, space: Space) -> None:
        self._domains = dict(space.keys)

    @property
    def keys(self) -> list[str]:
        return list(self._domains)

    def ends(self, key: str) -> tuple[Any, Any]:
        """The least and the most of a range."""
        return _value(self._domains[key], 0.0), _value(self._domains[key], 1.0)

    def values(self, point_K: Sequence[float] | Floats) -> dict[str, Any]:
        """The settings that a point stands for."""
        return {
            key: _value(domain, float(place))
            for (key, domain), place in zip(self._domains.items(), point_K, strict=True)
        }

    def point(self, values: Mapping[str, Any]) -> Floats:
        """The snapped point of some settings.

        Raises:
            ValueError: a value is outside its bounds, or none of the choices; ``args`` are the key, the value
                and what is allowed.
        """
        return np.array([_place(key, domain, values[key]) for key, domain in self._domains.items()])

    def snap(self, points_NK: Floats) -> Floats:
        """The nearest points that stand for values."""
        return np.array([self.point(self.values(row)) for row in np.clip(points_NK, 0, 1)]).reshape(
            points_NK.shape
        )

    def spread(self, count: int, rng: np.random.Generator) -> Floats:
        """Snapped points that fill the space: of every key, one in each of ``count`` equal parts."""
        strata = np.stack([rng.permutation(count) for _ in self._domains], axis=1)
        return self.snap((strata + rng.random(strata.shape)) / count)

    def around(self, centres_NK: Floats, count: int, rng: np.random.Generator) -> Floats:
        """Snapped points near some: each differs from one of them in some keys, by a little or by more."""
        picked = centres_NK[rng.integers(len(centres_NK), size=count)]
        widths = rng.choice([0.02, 0.08, 0.25], size=(count, 1))
        moved = rng.random(picked.shape) < max(0.5, 1 / len(self._domains))
        moved[np.arange(count), rng.integers(len(self._domains), size=count)] = True
        near = picked + np.where(moved, rng.normal(size=picked.shape) * widths, 0)
        for column, domain in enumerate(self._domains.values()):
            if isinstance(domain, Choices) and not domain.ordered:  # no neighbour: any other
                near[:, column] = np.where(moved[:, column], rng.random(count), picked[:, column])
        return self.snap(near)

    def features(self, points_NK: Floats) -> Floats:
        """What a model is given: a column a key, but one for each choice where these have no order.

        Any two such choices are as far apart as the ends of a range.
        """
        columns = []
        for column, domain in enumerate(self._domains.values()):
            places = points_NK[:, column]
            if isinstance(domain, Choices) and not domain.ordered:
                chosen = _index(places, len(domain.choices))
                columns += [(chosen == each) * math.sqrt(0.5) for each in range(len(domain.choices))]
            else:
                columns.append(places)
        return np.stack(columns, axis=1).astype(np.float64)


def _value(domain: Range | Choices, place: float) -> Any:
    if isinstance(domain, Choices):
        return _in_order(domain)[int(_index(np.array([place]), len(domain.choices))[0])]
    low, high = (math.log(domain.low), math.log(domain.high)) if domain.log else (domain.low, domain.high)
    value = low + place * (high - low)
    value = math.exp(value) if domain.log else value
    if domain.whole:
        return int(min(max(round(value), domain.low), domain.high))
    return min(max(float(f"{value:.{DIGITS}g}"), domain.low), domain.high)


def _place(key: str, domain: Range | Choices, value: Any) -> float:
    if isinstance(domain, Choices):
        choices = _in_order(domain)
        for index, choice in enumerate(choices):
            if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                return (index + 0.5) / len(choices)
        raise ValueError(key, value, f"one of {', '.join(map(str, domain.choices))}")
    allowed = f"{'a whole number' if domain.whole else 'a number'} from {domain.low:g} to {domain.high:g}"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not domain.low <= value <= domain.high or (domain.whole and value != round(value)):
        raise ValueError(key, value, allowed)
    if domain.log:
        return math.log(value / domain.low) / math.log(domain.high / domain.low)
    return float((value - domain.low) / (domain.high - domain.low))


def _in_order(domain: Choices) -> list[Any]:
    choices: list[Any] = list(domain.choices)
    return sorted(choices) if domain.ordered else choices


def _index(places: Floats, count: int) -> NDArray[np.int64]:
    return np.minimum((places * count).astype(np.int64), count - 1)
