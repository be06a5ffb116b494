"""What a row of the benchmarks yields: figures beside their limits, and curves. Imports no torch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edldist_benchmarks.interval import CONFIDENCE, Interval, median_interval

__all__ = [
    "Budget",
    "Curve",
    "Figure",
    "NotMeasuredError",
    "Point",
    "Result",
    "Runs",
    "Settings",
    "interleave",
    "rate",
]

Runs = dict[str, list[float]]
"""Every single run's figure, by what was measured."""

WARM_UP = 0.2
"""Share of a run's length that passes before it counts."""


class NotMeasuredError(Exception):
    """A row cannot be measured here (no such device, no such tool); that is no failure."""


@dataclass(frozen=True)
class Settings:
    """How long to measure.

    Attributes:
        repeats: interleaved runs of each measurement; medians are compared.
        seconds: length of one run.
    """

    repeats: int = 5
    seconds: float = 2.0


@dataclass(frozen=True)
class Budget:
    """What a figure should reach: its ratio to the limit, or itself (``of``), at least or at most."""

    at_least: float | None = None
    at_most: float | None = None
    of: str = "ratio"

    def met(self, figure: Figure) -> bool | None:
        """Whether it is reached.

        None: the runs do not decide. The interval in which the ratio lies is on both sides of the budget, or
        there are too few of them for one.
        """
        if self.of == "ratio" and figure.interval is not None:
            low, high, confidence = figure.interval
            ends = self._allows(low), self._allows(high)
            return ends[0] if ends[0] == ends[1] and confidence >= CONFIDENCE else None
        reached = figure.ratio if self.of == "ratio" else figure.value
        return reached is not None and self._allows(reached)

    def _allows(self, reached: float) -> bool:
        return (self.at_least is None or reached >= self.at_least) and (
            self.at_most is None or reached <= self.at_most
        )


@dataclass(frozen=True)
class Figure:
    """One line of the table: the median of some runs, and its limit from the same minutes.

    Attributes:
        what: the thing measured, in words.
        value: in ``unit``.
        limit: in ``unit``; None where there is nothing to compare with.
        limit_name: what the limit is, in words.
        budget: what is to be reached, if anything.
        runs: the single runs behind ``value`` and ``limit``.
        ratios: of the value to its limit in each turn of ``paired`` runs; else empty.
    """

    what: str
    value: float
    unit: str
    limit: float | None = None
    limit_name: str = ""
    budget: Budget | None = None
    runs: Mapping[str, Sequence[float]] = field(default_factory=dict)
    ratios: Sequence[float] = ()

    @classmethod
    def paired(
        cls,
        what: str,
        unit: str,
        values: Sequence[float],
        limits: Sequence[float],
        limit_name: str,
        budget: Budget | None = None,
    ) -> Figure:
        """Compare two series turn by turn: the ratio is the median of theirs, and has an interval."""
        figure = cls.median_of(what, unit, values, limits, limit_name, budget)
        ratios = [value / limit for value, limit in zip(values, limits, strict=True)]
        return replace(figure, ratios=ratios)

    @classmethod
    def median_of(
        cls,
        what: str,
        unit: str,
        values: Sequence[float],
        limits: Sequence[float] = (),
        limit_name: str = "",
        budget: Budget | None = None,
    ) -> Figure:
        """Compare the medians of two series of runs."""
        return cls(
            what,
            statistics.median(values),
            unit,
            statistics.median(limits) if limits else None,
            limit_name,
            budget,
            {"value": list(values), **({"limit": list(limits)} if limits else {})},
        )

    @property
    def ratio(self) -> float | None:
        if self.ratios:
            return statistics.median(self.ratios)
        return self.value / self.limit if self.limit else None

    @property
    def interval(self) -> Interval | None:
        """In which the ratio of ``paired`` runs lies."""
        return median_interval(self.ratios) if self.ratios else None

    @property
    def met(self) -> bool | None:
        """Whether the budget is; None where there is none, or the runs do not decide."""
        return None if self.budget is None else self.budget.met(self)

    @property
    def verdict(self) -> str:
        """The same in a word: ``yes``, ``NO``, ``open`` where runs do not decide; none without a budget."""
        return "" if self.budget is None else {True: "yes", False: "NO", None: "open"}[self.met]

    def document(self) -> dict[str, Any]:
        """For JSON."""
        budget = self.budget
        return {
            "what": self.what,
            "value": self.value,
            "unit": self.unit,
            "limit": self.limit,
            "limit_name": self.limit_name,
            "ratio": self.ratio,
            "interval": self.interval and self.interval._asdict(),
            "budget": budget and {"of": budget.of, "at_least": budget.at_least, "at_most": budget.at_most},
            "met": self.met,
            "runs": {name: list(values) for name, values in self.runs.items()},
        }


@dataclass(frozen=True)
class Point:
    """``value`` measured at ``x``, where ``ideal`` could be had."""

    x: float
    value: float
    ideal: float


@dataclass(frozen=True)
class Curve:
    """How a figure grows; ``name`` becomes the picture's file name."""

    name: str
    title: str
    x_label: str
    y_label: str
    points: Sequence[Point]
    ideal_name: str = "ideal"


@dataclass
class Result:
    """All that one row measured. ``notes`` are sentences for under the table."""

    figures: list[Figure] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def interleave(repeats: int, **measurements: Callable[[], float]) -> Runs:
    """Run each measurement in turn, ``repeats`` times, every other time in the reverse order.

    What changes slowly on a shared machine then changes all of them alike.
    """
    runs: Runs = {name: [] for name in measurements}
    for turn in range(repeats):
        names = list(measurements)
        for name in names[:: -1 if turn % 2 else 1]:
            runs[name].append(measurements[name]())
    return runs


def rate(step: Callable[[], object], seconds: float) -> float:
    """Calls of ``step`` a second, after a warm-up; from one call's end to another call's end."""
    began = time.perf_counter()
    while True:
        step()
        if time.perf_counter() - began >= seconds * WARM_UP:
            break
    count, began = 0, time.perf_counter()
    while True:
        step()
        count += 1
        if (took_s := time.perf_counter() - began) >= seconds:
            return count / took_s
