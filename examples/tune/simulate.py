"""Tunings on the made response surface: the code of ``edldist tune``, with made metrics for jobs.

What proposes, keeps the journal and recommends is the product's (``edldist_launch.tune``). Only this is made
up here: a trial's metrics come from ``surface``, and are held back until the next window has begun.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edldist_launch.tune.cube import Cube
from edldist_launch.tune.journal import Journal, Kept, Trial
from edldist_launch.tune.search import Search, Seen
from edldist_launch.tune.space import deciding_space
from edldist_launch.tune.study import Study
from examples.tune.surface import BASE, SPACE, Surface

__all__ = ["METHODS", "Outcome", "tune_surface"]


@dataclass(frozen=True)
class Outcome:
    """What a tuning recommends, as it truly is.

    Attributes:
        feasible: whether it holds the constraints.
        share: its gain over the control, as a share of what the best settings gain.
    """

    feasible: bool
    share: float


class RandomSearch(Search):
    """Proposes points that fill the space, whatever was seen. Recommends as the product does."""

    def propose(self, seen: Sequence[Seen], count: int, turn: int) -> list[dict[str, object]]:
        rng = np.random.default_rng([self._seed, turn])
        cube = Cube(SPACE)
        return [cube.values(point) for point in rng.random((count, len(cube.keys)))]


class RandomPick(RandomSearch):
    """Random search as it is mostly done: recommends the best figures that were measured."""

    def recommend(self, seen: Sequence[Seen]) -> int | None:
        holding = [place for place, each in enumerate(seen) if SPACE.holds(each.ratios)]
        return max(holding, key=lambda place: seen[place].ratios["quality"], default=None)


class RawStudy(Study):
    """Takes metrics as they are: divided by what all controls had on the average, whatever their window."""

    def control(self, window: int) -> dict[str, float] | None:
        controls = [trial.metrics for trial in self.trials if trial.control and trial.state == "done"]
        if not controls:
            return None
        return {name: sum(each[name] for each in controls) / len(controls) for name in SPACE.metrics}


METHODS: Mapping[str, tuple[type[Study], type[Search]]] = {
    "edldist tune": (Study, Search),
    "random search": (Study, RandomSearch),
    "random search, best as measured": (Study, RandomPick),
    "raw metrics": (RawStudy, Search),
}


def tune_surface(method: str, seed: int, windows: int, folder: Path) -> Outcome:
    """Tune one surface.

    The figures of a window come when the next one has been proposed and started: proposals know those of the
    window before the last, and older ones.

    Args:
        method: one of ``METHODS``.
        seed: of the surface, the noise and the search.
        windows: of ``SPACE.window`` candidates each.
        folder: for the journal.
    """
    surface = Surface(seed)
    study_of, search_of = METHODS[method]
    study = study_of(SPACE, BASE, windows * SPACE.window, search=search_of(SPACE, BASE, seed))
    journal = Journal(folder)
    late: list[Trial] = []
    for _ in range(windows):
        started = _start_window(study)
        _write(journal, study)
        _end(study, surface, late, seed)
        late = started
    _end(study, surface, late, seed)
    _write(journal, study)
    best = study.best()
    return Outcome(False, 0.0) if best is None else _truly(surface, best.values)


def _start_window(study: Study) -> list[Trial]:
    started = []
    while (trial := study.next()) is not None:
        started.append(trial)
        if len(started) == SPACE.controls + SPACE.window:
            break
    return started


def _end(study: Study, surface: Surface, trials: Sequence[Trial], seed: int) -> None:
    for trial in trials:
        metrics = surface.measure(trial.values, trial.window, trial.number, seed)
        study.ended(trial.number, metrics, metrics, steps=1)


def _write(journal: Journal, study: Study) -> None:
    kept = Kept(job="surface", digest="", space=deciding_space(SPACE), trials=study.trials)
    journal.write(kept, {}, [{} for _ in study.trials])


def _truly(surface: Surface, values: Mapping[str, Any]) -> Outcome:
    ratios = surface.of(values)
    return Outcome(SPACE.holds(ratios), SPACE.gain(ratios["quality"]) / surface.best_gain)
