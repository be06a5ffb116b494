"""The setting with the fewest worker seconds that meets a target. Pure: it asks ``replay`` again and again.

A setting is a batch size, a depth of reading ahead, and so many workers of each type. Most of that space need
not be looked at:

* More depth costs no worker a second and never slows a job down, so the search is done with the greatest one;
  the least that does as well is looked for behind it.
* Of so many workers, those on the fastest devices label most, and all of them cost the same.
* More workers give more, up to what the student takes. So the least number that meets a target is found from
  the one that the fitted lines name, a step up or down at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edldist_launch.planner.pace import WorkerPace
from edldist_launch.planner.replay import TRIP_S, replay
from edldist_launch.planner.setting import Loop, Setting
from edldist_launch.planner.target import Option, Target

__all__ = ["Found", "Search"]

AS_GOOD = 0.01
"""A lesser depth may cost so much more, as a share."""
LEAST_GAIN = 0.005
"""One worker more that raises the rate by less, as a share, while the student waits, is one of too many."""
FLAT = 2
"""So many of these in a row, and no more of them help."""
MOST_STEPS = 24

_Fleet = Callable[[int], Option]


@dataclass(frozen=True)
class Found:
    """What a search came to: ``best`` is what was looked for, or the nearest to it if nothing ``met`` it."""

    best: Option
    met: bool


class Search:
    """Looks for plans of one job.

    Args:
        loop: the student.
        paces: by type of device.
        most: how many workers of each type there may be; each type has a pace.
        batch_sizes, depths: that may be chosen, not empty.
        samples: of the whole run.
        trip_s: how long a message travels.
    """

    def __init__(
        self,
        loop: Loop,
        paces: Mapping[str, WorkerPace],
        most: Mapping[str, int],
        batch_sizes: Sequence[int],
        depths: Sequence[int],
        samples: int,
        trip_s: float = TRIP_S,
    ) -> None:
        self.loop = loop
        self.paces = paces
        self.most = {device: count for device, count in most.items() if count}
        self.batch_sizes = sorted(batch_sizes)
        self.depths = sorted(depths)
        self.samples = samples
        self._trip_s = trip_s
        self._seen: dict[Setting, Option] = {}

    @property
    def seen(self) -> Sequence[Option]:
        """All that was replayed so far."""
        return list(self._seen.values())

    @property
    def all_workers(self) -> int:
        return sum(self.most.values())

    def look(self, setting: Setting) -> Option:
        """Replay a setting, once."""
        known = self._seen.get(setting)
        if known is None:
            replayed = replay(setting, self.loop, self.paces, self._trip_s)
            known = self._seen[setting] = Option(setting, replayed, self.samples)
        return known

    def mix(self, batch_size: int, workers: int) -> dict[str, int]:
        """So many workers, on the fastest devices."""
        by_rate = sorted(self.most, key=lambda each: (-self.paces[each].rows_per_s(batch_size), each))
        counts = {}
        for device in by_rate:
            counts[device] = min(workers, self.most[device])
            workers -= counts[device]
        return counts

    def fleet(self, batch_size: int, depth: int, workers: int) -> Option:
        """The same as an option."""
        return self.look(Setting.of(batch_size, depth, self.mix(batch_size, workers)))

    def plan(self, target: Target) -> Found:
        """The best setting for a target, or the nearest to it."""
        deepest = self.depths[-1]
        options = [self._of_size(size, deepest, target) for size in self.batch_sizes]
        best = min(options, key=target.place)
        if not target.met_by(best):
            return Found(best, met=False)
        return Found(self._shallower(best, target), met=True)

    def _of_size(self, size: int, depth: int, target: Target) -> Option:
        """The best number of workers for a batch size."""

        def at(workers: int) -> Option:
            return self.fleet(size, depth, workers)

        if target.kind == "budget":
            most = self._named(size, self.loop.samples_per_s) + FLAT
            return self._within(at, min(most, self.all_workers), target)
        workers = self._named(size, target.needs(self.samples, self.loop.samples_per_s))
        option = at(workers)
        if target.met_by(option):
            while workers > 1 and target.met_by(fewer := at(workers - 1)):
                workers, option = workers - 1, fewer
            return option
        return self._upwards(at, workers, target)

    def _upwards(self, at: _Fleet, workers: int, target: Target) -> Option:
        """The first number above that meets the target; the best one where none does."""
        best, flat = at(workers), 0
        step = 1
        for _ in range(MOST_STEPS):
            if workers >= self.all_workers or flat >= FLAT:
                break
            workers = min(workers + step, self.all_workers)
            step = max(1, workers // 8)
            more = at(workers)
            gained = more.replayed.samples_per_s > best.replayed.samples_per_s * (1 + LEAST_GAIN)
            flat = 0 if gained else flat + 1
            best = min(best, more, key=target.place)
            if target.met_by(more):
                while workers > 1 and target.met_by(fewer := at(workers - 1)):
                    workers, best = workers - 1, fewer
                return best
        return best

    def _within(self, at: _Fleet, high: int, target: Target) -> Option:
        """The most workers that a budget pays for, up to ``high``: what they cost grows with their number."""
        low, best = 1, at(1)
        while low <= high:
            middle = (low + high) // 2
            option = at(middle)
            best = min(best, option, key=target.place)
            if target.met_by(option):
                low = middle + 1
            else:
                high = middle - 1
        return best

    def _named(self, size: int, samples_per_s: float) -> int:
        """How many workers it takes by the fitted lines alone, of those that there may be."""
        given = 0.0
        for workers in range(1, self.all_workers + 1):
            counts = self.mix(size, workers)
            given = sum(self.paces[device].rows_per_s(size) * n for device, n in counts.items())
            if given >= samples_per_s * self.loop.sample_rows:
                return workers
        return self.all_workers

    def _shallower(self, best: Option, target: Target) -> Option:
        """The same with the least depth that does as well."""
        for depth in self.depths[:-1]:
            setting = Setting(best.setting.batch_size, depth, best.setting.counts)
            option = self.look(setting)
            as_good = option.worker_s <= best.worker_s * (1 + AS_GOOD)
            if as_good and target.met_by(option):
                return option
        return best
