"""What the student's efficiency costs: of all that was replayed, what nothing else beats in both. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edldist_launch.planner.search import Search
from edldist_launch.planner.setting import Setting
from edldist_launch.planner.target import Option

__all__ = ["enough_workers", "frontier", "sweep"]

MOST_POINTS = 14
FULL = 0.99
"""Of the best efficiency that any number of workers has: so much of it is all."""


def sweep(search: Search, setting: Setting) -> list[Option]:
    """A plan's batch size and depth with fewer workers, and with more, until more give nothing."""
    options: list[Option] = []
    workers = 1
    while workers <= search.all_workers and len(options) < MOST_POINTS:
        options.append(search.fleet(setting.batch_size, setting.high_watermark, workers))
        enough = options[-1].replayed.efficiency >= FULL
        if enough and workers >= setting.workers + 1:
            break
        workers += max(1, setting.workers // 6)
    return options


def frontier(options: Iterable[Option]) -> list[Option]:
    """Those of which none other costs less and is as efficient, the cheapest first."""
    kept: list[Option] = []
    reached = -1.0
    for option in sorted(options, key=lambda each: (each.worker_s, -each.replayed.efficiency)):
        if option.replayed.efficiency > reached:
            kept.append(option)
            reached = option.replayed.efficiency
    return kept


def enough_workers(swept: Sequence[Option], at_least: int) -> int:
    """How many workers are enough for all of the efficiency that there is, and no fewer than a plan has."""
    most = max(option.replayed.efficiency for option in swept)
    enough = [o.setting.workers for o in swept if o.replayed.efficiency >= FULL * most]
    return max(at_least, min(enough))
