"""Lines of several processes in the order in which they were written. Pure.

A line's time is what it begins with, as log lines of edldist do, in text (the clock of its host, in the time
zone of who reads) or as JSON (``t``); else when it was written, where an engine knows that; else that of the
line before it. Lines of one process always keep their order, whatever its clock did.
"""

from __future__ import annotations

import heapq
import json
import math
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from operator import itemgetter

__all__ = ["in_order", "stamp_of", "timed"]

_STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{3})? ")
_MOST_JSON = 1 << 16


def stamp_of(text: str) -> float | None:
    """Unix seconds that a line tells itself; None where it tells none."""
    if found := _STAMP.match(text):
        try:
            return datetime.fromisoformat(found[0].rstrip()).timestamp()
        except (ValueError, OverflowError, OSError):
            return None
    if text.startswith('{"t": ') and len(text) <= _MOST_JSON:
        try:
            told = json.loads(text)
        except (ValueError, RecursionError):
            return None
        t = told.get("t") if isinstance(told, dict) else None
        return float(t) if isinstance(t, int | float) and math.isfinite(t) else None
    return None


def timed(lines: Iterable[tuple[float | None, str]], since: float = -math.inf) -> Iterator[tuple[float, str]]:
    """Lines of one process, each with a time that is not before that of the line before it.

    Args:
        lines: when each was written, as far as that is known, and its text.
        since: the time of the line before the first.
    """
    latest = since
    for written, text in lines:
        stamp = stamp_of(text)
        known = stamp if stamp is not None else written
        latest = latest if known is None else max(latest, known)
        yield latest, text


def in_order(streams: Iterable[tuple[str, Iterable[tuple[float, str]]]]) -> Iterator[str]:
    """The lines of all streams by their times, each begun by whose it is; of equal times the first stream's.

    Args:
        streams: whose each is, and its ``timed`` lines; they are read as far as is needed and no further.
    """

    def named(whose: str, lines: Iterable[tuple[float, str]]) -> Iterator[tuple[float, str]]:
        return ((t, f"{whose}: {text}") for t, text in lines)

    merged = heapq.merge(*(named(whose, lines) for whose, lines in streams), key=itemgetter(0))
    return (line for _, line in merged)
