"""Loads of a teacher group, hour by hour: how many student ranks train, and when workers are taken away."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["LENGTH_S", "LOADS", "Load"]

LENGTH_S = 7200
MINUTE_S = 60


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


LOADS = (
    Load("steady", lambda second: 14),
    Load("steps", _steps),
    Load("ramp", _ramp),
    Load("waves", _waves),
    Load("bursts", _bursts),
    Load("a pause", _day),
    Load("spot losses", lambda second: 13, range(10 * MINUTE_S, LENGTH_S, 10 * MINUTE_S), 0.3),
)
