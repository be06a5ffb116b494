"""A student node killed, and one joining, beside plain torchrun: from ``benchmarks.restart``."""

from __future__ import annotations

from typing import Any

from edldist_benchmarks.figures import Budget, Figure, Result, Settings
from edldist_benchmarks.restart import measure

__all__ = ["measure_restarts"]

MAX_REPEATS = 3
"""One takes about a minute."""


def measure_restarts(settings: Settings) -> Result:
    """Seconds from the event to the first step of the new group."""
    found: list[dict[str, Any]] = measure(min(settings.repeats, MAX_REPEATS))
    result = Result()
    for row in found:
        runs, start_cpu_s = row["runs"], row["start_cpu_s"]
        budget = Budget(at_most=row["budget"])
        limit_name = "s plain torchrun"
        values, limits = runs["edldist"], runs["plain torchrun"]
        result.figures.append(Figure.median_of(row["name"], "s", values, limits, limit_name, budget))
        cpu_s, limit = start_cpu_s["edldist"], start_cpu_s["plain torchrun"]
        result.figures.append(Figure("  CPU of a rank until then", cpu_s, "s", limit, limit_name))
    return result
