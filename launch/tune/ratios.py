"""Metrics of trials as ratios to the control of the same window. Pure.

What a whole window has in common (the seed, the version of a teacher, how busy the machine is) is in the
control's figures as in everyone else's, and cancels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edldist.errors import ConfigError
from edldist_launch.tune.journal import Trial
from edldist_launch.tune.space import Space

__all__ = ["Verdict", "check_control", "control_of", "judge", "ratios_of"]


@dataclass(frozen=True)
class Verdict:
    """What a trial amounts to.

    Attributes:
        ratios: of the metrics that decide, to the control; those that are known.
        known: whether all of them are.
        feasible: whether all constraints hold.
        gain: by how much the objective is better than the control's, as a share; NaN if that is not known.
    """

    ratios: Mapping[str, float]
    known: bool
    feasible: bool
    gain: float


def control_of(window: int, trials: Iterable[Trial], metrics: Sequence[str]) -> dict[str, float] | None:
    """The mean of each metric over the controls of a window; None before all of them are done."""
    controls = [trial for trial in trials if trial.control and trial.window == window]
    if not controls or any(trial.state != "done" for trial in controls):
        return None
    return {name: math.fsum(each.metrics[name] for each in controls) / len(controls) for name in metrics}


def ratios_of(
    metrics: Mapping[str, float], control: Mapping[str, float], names: Sequence[str]
) -> dict[str, float]:
    """Of the metrics that both have and that are finite, to those of the control."""
    return {
        name: metrics[name] / control[name]
        for name in names
        if name in metrics and name in control and math.isfinite(metrics[name]) and control[name] > 0
    }


def judge(space: Space, trial: Trial, control: Mapping[str, float] | None) -> Verdict:
    """A trial beside its control: of one that was stopped, at the step at which it was."""
    beside = trial.beside if trial.state == "stopped" else control
    if not trial.ended or beside is None:
        return Verdict({}, False, False, math.nan)
    ratios = ratios_of(trial.metrics, beside, space.metrics)
    known = all(name in ratios for name in space.metrics)
    gain = space.gain(ratios[space.objective.metric]) if space.objective.metric in ratios else math.nan
    feasible = trial.state == "done" and known and space.holds(ratios)
    return Verdict(ratios, known, feasible, gain)


def check_control(space: Space, metrics: Mapping[str, float], reported: Mapping[str, object]) -> None:
    """Refuse to go on with a control to which nothing can be a ratio.

    Args:
        metrics: the finite numbers among what it reported.
        reported: all that it reported.

    Raises:
        ConfigError: a metric that decides was not reported, or is no finite number above 0.
    """
    for name in space.metrics:
        if name not in reported:
            has = ", ".join(sorted(reported)) or "nothing"
            raise ConfigError(
                f"the control never reported the metric {name!r}: the script has to call "
                f"edldist.report({name}=...). It reported {has}"
            )
        if name not in metrics:
            raise ConfigError(
                f"the control's {name} is {reported[name]!r}, which is no finite number: no trial can be "
                "compared with it. Change the job's own settings to ones that work"
            )
        if metrics[name] <= 0:
            raise ConfigError(
                f"the control's {name} is {metrics[name]:g}: a ratio to it says nothing. Have the script "
                "report a figure above 0, such as an error rate, a likelihood or a perplexity"
            )
