"""Whether a trial that runs still has a chance, by what it has reported beside the others so far. Pure.

Conservative: to stop a good trial costs the tuning its result, to let a bad one run costs some minutes.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edldist_launch.tune.space import Space

__all__ = ["Curves", "Past", "hopeless"]

LEAST_SHARE = 0.25
"""No trial is judged before it has come so far, as a share of the control's steps."""
LEAST_PAST = 4
"""Fewer trials that came to their end are no measure."""
IN_A_ROW = 3
"""So many reports, one after the other, have to speak against it."""
WORST_SHARE = 0.25
"""It has to be among the worst at the same step: this share of those that came to their end."""


@dataclass
class Curves:
    """What one trial reported, by metric and step; of a step that is reported again the last value counts."""

    _values: dict[str, dict[int, float]] = field(default_factory=dict)
    _steps: dict[str, list[int]] = field(default_factory=dict)
    step: int = 0

    def add(self, step: int, values: Mapping[str, object]) -> None:
        """Note figures; those that are no numbers are left out, those that are not finite are kept."""
        self.step = max(self.step, step)
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            known = self._values.setdefault(name, {})
            if step not in known:
                bisect.insort(self._steps.setdefault(name, []), step)
            known[step] = float(value)

    def at(self, name: str, step: float = math.inf) -> float | None:
        """A metric as it stood at a step: its last report until then; None before the first."""
        steps = self._steps.get(name, [])
        place = bisect.bisect_right(steps, step)
        return self._values[name][steps[place - 1]] if place else None

    def steps(self, name: str) -> list[int]:
        """The steps at which a metric was reported."""
        return list(self._steps.get(name, []))

    def last(self, step: float = math.inf) -> dict[str, float]:
        """Every metric as it stood at a step."""
        found = {name: self.at(name, step) for name in self._values}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class Past:
    """A candidate that came to its end.

    Attributes:
        curves: what it reported.
        control: what its own control reported.
        gain: what it came to.
    """

    curves: Curves
    control: Curves
    gain: float


def hopeless(space: Space, trial: Curves, control: Curves, past: Sequence[Past]) -> str:
    """Why a candidate need not go on; empty if it should.

    It is stopped only if at each of its last three reports of the objective it was worse than the control of
    its window, and among the worst quarter of the candidates that came to their end, at the same step and
    each beside its own control; and if none of these that was as far behind there came out ahead of the
    control.

    Args:
        space: with the objective.
        trial: what the candidate has reported.
        control: what its control has reported, from its begin to its end.
        past: candidates that came to their end.
    """
    name = space.objective.metric
    steps = [step for step in trial.steps(name) if step <= (space.steps or math.inf)][-IN_A_ROW:]
    values = [trial.at(name, step) for step in steps]
    if len(steps) == IN_A_ROW and not any(value is not None and math.isfinite(value) for value in values):
        return f"{name} is not finite at steps {', '.join(map(str, steps))}"
    if len(steps) < IN_A_ROW or len(past) < LEAST_PAST:
        return ""
    if not LEAST_SHARE * control.step <= steps[-1] < control.step:
        return ""  # too early, or there is nothing left to save
    for step in steps:
        own = _gain(space, trial, control, step)
        theirs = [
            (gain, each)
            for each in past
            if (gain := _gain(space, each.curves, each.control, step)) is not None
        ]
        if own is None or own >= 0 or len(theirs) < LEAST_PAST:
            return ""
        ranked = sorted(gain for gain, _ in theirs)
        if own >= ranked[max(0, math.ceil(WORST_SHARE * len(ranked)) - 1)]:
            return ""
        if any(gain <= own and each.gain > 0 for gain, each in theirs):
            return ""
    return (
        f"{name} was {-_sure(_gain(space, trial, control, steps[-1])):.1%} worse than the control at step "
        f"{steps[-1]}, and worse than three quarters of the trials that came to their end"
    )


def _gain(space: Space, curves: Curves, control: Curves, step: int) -> float | None:
    """By how much the objective was better than the control's at the same step, as a share."""
    own, other = (each.at(space.objective.metric, step) for each in (curves, control))
    if own is None or other is None or not math.isfinite(other) or other <= 0:
        return None
    return space.gain(own / other) if math.isfinite(own) else -math.inf


def _sure(gain: float | None) -> float:
    return math.nan if gain is None else gain
