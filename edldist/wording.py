"""Numbers in words, as every message, terminal and page says them."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["duration", "in_words", "number", "rate", "share"]

_SHOWN = 8


def in_words(numbers: Sequence[int]) -> str:
    """``3..5`` of growing numbers that lie side by side, else ``3, 5, 9`` and how many more."""
    if len(numbers) and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]}..{numbers[-1]}"
    more = len(numbers) - _SHOWN
    return ", ".join(map(str, numbers[:_SHOWN])) + (f" and {more} more" if more > 0 else "")


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: ``8s``, ``2m05s``, ``3h07m``."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def number(value: object) -> str:
    """A figure in few digits; anything else as it is, in one line."""
    if isinstance(value, bool) or not isinstance(value, float):
        return " ".join(str(value).split())
    return f"{value:.4g}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.3e}"


def rate(value: float | None) -> str:
    """A number a second, in few characters: digits where they say something."""
    if value is None:
        return "-"
    if value >= 100_000:
        return f"{value / 1000:,.0f}k"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def share(value: float | None) -> str:
    """A share in per cent."""
    return "-" if value is None else f"{value:.0%}"
