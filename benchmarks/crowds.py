"""What the coordinator costs with a thousand members and more, from ``benchmarks.members``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edldist_benchmarks.figures import Budget, Curve, Figure, Point, Result, Settings
from edldist_benchmarks.members import BUDGET_PERCENT, measure

__all__ = ["measure_crowds"]

MEMBERS = 1000
LARGER = (2000, 4000)
MAX_REPEATS = 3
WATCH_S = 2.5
"""Heartbeats come once a second, so a crowd is watched for this many times the length of a run."""


def measure_crowds(settings: Settings) -> Result:
    """Share of a core at 1 Hz, and the seconds until everyone is in, at once and after a restart."""
    seconds = WATCH_S * settings.seconds
    found = [measure(MEMBERS, seconds) for _ in range(min(settings.repeats, MAX_REPEATS))]
    budget = Budget(at_most=BUDGET_PERCENT, of="value")
    figures = [
        Figure.median_of("at 1 Hz", "% of a core", _series(found, "cpu_percent"), budget=budget),
        Figure.median_of("all joined after", "s", _series(found, "join_s")),
        Figure.median_of("all back after a restart", "s", _series(found, "rejoin_s")),
    ]
    larger = {members: measure(members, seconds) for members in LARGER}
    lost = sum(_series([*found, *larger.values()], "lost"))
    figures.append(Figure("members lost meanwhile", lost, "", budget=Budget(at_most=0, of="value")))
    points = [(MEMBERS, figures[0].value)]
    points += [(members, _series([one], "cpu_percent")[0]) for members, one in larger.items()]
    figures += [Figure(f"{members:,} members", percent, "% of a core") for members, percent in points[1:]]
    curve = Curve(
        "coordinator",
        "The coordinator under heartbeats at 1 Hz",
        "members",
        "% of a core",
        [Point(members, percent, BUDGET_PERCENT * members / MEMBERS) for members, percent in points],
        ideal_name="budget, in proportion",
    )
    return Result(figures, [curve])


def _series(found: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [float(one[name]) for one in found]
