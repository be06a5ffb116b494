"""A student node killed, and one joining, beside plain torchrun: from ``benchmarks.restart``."""

from __future__ import annotations

from typing import Any

from benchmarks.figures import Budget, Figure, Result, Settings
from benchmarks.restart import measure

__all__ = ["measure_restarts"]

MAX_REPEATS = 3
"""One takes about a minute."""


def measure_restarts(settings: Settings) -> Result:
    """Seconds from the event to the first step of the new group."""
    found: list[dict[str, Any]] = measure(min(settings.repeats, MAX_REPEATS))
    return Result(
        [
            Figure(
                row["name"],
                row["edldist_s"],
                "s",
                row["torchrun_s"],
                "s plain torchrun",
                Budget(at_most=row["budget"]),
                {"value": row["runs"]["edldist"], "limit": row["runs"]["plain torchrun"]},
            )
            for row in found
        ]
    )
