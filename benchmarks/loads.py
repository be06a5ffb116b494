"""Loads of a teacher group, hour by hour: how many student ranks train, and when workers are taken away.

One was recorded from a job (``recording``), the others are generated.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean

__all__ = ["LENGTH_S", "LOADS", "Load"]

LENGTH_S = 7200
MINUTE_S = 60
RECORDED = Path(__file__).with_name("digits_load.csv")
RECORDED_RANKS = 13
"""So many of the simulated ranks take on the average what was recorded."""


@dataclass(frozen=True)
class Load:
    """What happens in two hours.

    Attributes:
        name: in words.
        ranks: how many train, by the second. Two take a little less than one worker gives.
        losses: seconds at which workers are taken away.
        lost: share of the workers that goes then.
    """

    name: str
    ranks: Callable[[int], int]
    losses: Sequence[int] = ()
    lost: float = 0.0


def _steps(second: int) -> int:
    return (4, 16, 8, 24, 12, 6)[second // (20 * MINUTE_S)]


def _ramp(second: int) -> int:
    return 4 + round(20 * (1 - abs(1 - 2 * second / LENGTH_S)))


def _bursts(second: int) -> int:
    return 20 if second % (20 * MINUTE_S) >= 15 * MINUTE_S else 6


def _day(second: int) -> int:
    return 0 if 40 * MINUTE_S <= second < 80 * MINUTE_S else 13


def _waves(second: int) -> int:
    return round(14 + 8 * math.sin(2 * math.pi * second / (30 * MINUTE_S)))


@lru_cache
def _recorded() -> Sequence[int]:
    """What was recorded, in simulated ranks, row by row.

    Ranks of which nobody could tell yet what they take are those of the next row in which somebody could.
    """
    with RECORDED.open(encoding="utf-8") as stream:
        rows = [(row["demand"], int(row["ranks"])) for row in csv.DictReader(stream)]
    demands, known = [], 0.0
    for demand, ranks in reversed(rows):
        known = float(demand) if demand else known if ranks else 0.0
        demands.insert(0, known)
    a_rank = fmean(demands) / RECORDED_RANKS
    return [round(demand / a_rank) for demand in demands]


def _digits(second: int) -> int:
    """The recorded load, played so slowly that it takes all the time."""
    ranks = _recorded()
    return ranks[second * len(ranks) // LENGTH_S]


LOADS = (
    Load("steady", lambda second: 14),
    Load("steps", _steps),
    Load("ramp", _ramp),
    Load("waves", _waves),
    Load("bursts", _bursts),
    Load("a pause", _day),
    Load("spot losses", lambda second: 13, range(10 * MINUTE_S, LENGTH_S, 10 * MINUTE_S), 0.3),
    Load("recorded", _digits),
)
