"""Means over seeds with their standard errors, and tables of them in Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from examples.common.errors import SweepError

__all__ = ["Figure", "differences", "table"]


@dataclass(frozen=True)
class Figure:
    """A mean over seeds.

    ``f"{figure:.2f}"`` is ``0.71 ± 0.01``; a sign or a comma in the format is the mean's alone.

    Attributes:
        mean: finite.
        error: standard error of the mean, the sample standard deviation over sqrt(n); None of one seed.
        seeds: over which.
    """

    mean: float
    error: float | None
    seeds: list[int]

    @classmethod
    def of(cls, name: str, values: Mapping[int, float]) -> Figure:
        """From one value a seed.

        Raises:
            SweepError: there is no value, or one is not finite.
        """
        if not values:
            raise SweepError(f"{name}: no seeds, no figure")
        if wrong := {seed: value for seed, value in values.items() if not math.isfinite(value)}:
            seed, value = next(iter(wrong.items()))
            raise SweepError(f"{name}: {value} with seed {seed} is not finite, so there is no mean")
        found = list(values.values())
        error = statistics.stdev(found) / math.sqrt(len(found)) if len(found) > 1 else None
        return cls(statistics.mean(found), error, list(values))

    def as_json(self) -> dict[str, Any]:
        return {"mean": self.mean, "error": self.error, "seeds": self.seeds}

    def __format__(self, spec: str) -> str:
        spec = spec or ".3f"
        mean = format(self.mean, spec)
        return mean if self.error is None else f"{mean} ± {format(self.error, spec.lstrip('+ '))}"


def differences(one: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
    """One less the other, seed by seed.

    Raises:
        SweepError: they are of different seeds.
    """
    if one.keys() != other.keys():
        raise SweepError(f"seeds {list(one)} cannot be compared with seeds {list(other)}, one by one")
    return {seed: value - other[seed] for seed, value in one.items()}


def table(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Markdown: the first column is text, numbers stand on the right."""
    names = list(headings)
    lines = [
        f"| {' | '.join(names)} |",
        f"|---|{'---:|' * (len(names) - 1)}",
        *(f"| {' | '.join(format(cell) for cell in row)} |" for row in rows),
    ]
    return "\n".join(lines)
