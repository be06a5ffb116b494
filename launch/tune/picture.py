"""The picture of a tuning: what was tried, what came of it, and what the model makes of it."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edldist.files import replace_file
from edldist_launch.tune.cube import Cube
from edldist_launch.tune.journal import Trial
from edldist_launch.tune.report import Standing, shown
from edldist_launch.tune.space import Choices, Constraint, Range
from edldist_launch.tune.study import Study

__all__ = ["draw_tuning"]

PLACES = 41
"""Settings of one key at which the model's curve is drawn."""
HOLDS, BREAKS, STOPPED, BEST, MODEL = "tab:green", "tab:orange", "tab:grey", "tab:red", "tab:blue"


def draw_tuning(study: Study, standing: Standing, picture: Path, title: str) -> bool:
    """Draw ``picture`` (PNG); False when matplotlib is not installed or no trial has ended.

    Raises:
        OSError: it cannot be written; a former picture stands.
    """
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    space = study.space
    ended = [trial for trial in study.trials if trial.ended and not trial.control]
    if not ended:
        return False
    panels = 1 + len(space.constraints) + len(space.keys)
    across = min(3, panels)
    rows = math.ceil(panels / across)
    figure, axes = pyplot.subplots(
        rows, across, figsize=(4.6 * across, 3.4 * rows), layout="constrained", squeeze=False
    )
    drawn = io.BytesIO()
    try:
        figure.suptitle(title, parse_math=False)
        places = iter([axis for line in axes for axis in line])
        _by_trial(next(places), study, standing, ended)
        for constraint in space.constraints:
            _by_constraint(next(places), study, standing, ended, constraint)
        for key, domain in space.keys.items():
            _by_key(next(places), study, standing, ended, key, domain)
        for axis in places:
            axis.set_axis_off()
        known: dict[str, Any] = {}
        for axis in axes.flat:
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
                known.setdefault(label, handle)
        figure.legend(
            known.values(), known.keys(), loc="outside lower center", ncols=len(known), frameon=False
        )
        figure.savefig(drawn, format="png", dpi=120)
    finally:
        pyplot.close(figure)
    replace_file(picture, drawn.getvalue())
    return True


def _ratio(study: Study, trial: Trial, metric: str) -> float:
    return study.verdict(trial).ratios.get(metric, math.nan)


def _groups(study: Study, trials: Sequence[Trial]) -> Mapping[str, tuple[str, str, list[Trial]]]:
    """Trials by what became of them: colour, marker, trials."""
    holding = [trial for trial in trials if study.verdict(trial).feasible]
    breaking = [trial for trial in trials if trial.state == "done" and not study.verdict(trial).feasible]
    stopped = [trial for trial in trials if trial.state == "stopped"]
    return {
        "holds the constraints" if study.space.constraints else "done": (HOLDS, "o", holding),
        "breaks one": (BREAKS, "s", breaking),
        "stopped early": (STOPPED, "v", stopped),
    }


def _scatter(axis: Any, study: Study, trials: Sequence[Trial], xs: Mapping[int, float], metric: str) -> None:
    for label, (colour, marker, group) in _groups(study, trials).items():
        if group:
            axis.scatter(
                [xs[trial.number] for trial in group],
                [_ratio(study, trial, metric) for trial in group],
                s=18,
                color=colour,
                marker=marker,
                alpha=0.75,
                label=label,
                linewidths=0,
            )


def _by_trial(axis: Any, study: Study, standing: Standing, trials: Sequence[Trial]) -> None:
    """The objective's ratio in the order of the trials, and the best that held so far."""
    metric = study.space.objective.metric
    xs = {trial.number: float(trial.number) for trial in trials}
    _scatter(axis, study, trials, xs, metric)
    steps, best = [], []
    reached = math.nan
    for trial in trials:
        verdict = study.verdict(trial)
        if verdict.feasible and not study.space.gain(reached) >= verdict.gain:
            reached = verdict.ratios[metric]
        steps.append(trial.number)
        best.append(reached)
    axis.plot(steps, best, drawstyle="steps-post", color=HOLDS, linewidth=1.2, label="best so far")
    failed = [trial.number for trial in trials if trial.state == "failed"]
    if failed:
        low, _ = axis.get_ylim()
        axis.scatter(failed, [low] * len(failed), marker="x", color="black", s=18, label="failed")
    for window in sorted({trial.window for trial in trials})[1:]:
        begins = min(trial.number for trial in study.trials if trial.window == window)
        axis.axvline(begins - 0.5, color="grey", linestyle=":", linewidth=0.8)
    _control(axis)
    if standing.best is not None:
        number = standing.best.number
        ratio = _ratio(study, standing.best, metric)
        axis.scatter(
            [number], [ratio], s=130, facecolors="none", edgecolors=BEST, linewidths=1.8, label="recommended"
        )
    _names(axis, "trial (dotted: a new window)", f"{metric} / control")


def _by_constraint(
    axis: Any, study: Study, standing: Standing, trials: Sequence[Trial], constraint: Constraint
) -> None:
    """The objective beside one constraint; what breaks it is shaded."""
    metric = study.space.objective.metric
    xs = {trial.number: _ratio(study, trial, constraint.metric) for trial in trials}
    _scatter(axis, study, trials, xs, metric)
    axis.axvline(constraint.bound, color=BREAKS, linewidth=1.2)
    low, high = axis.get_xlim()
    broken = (constraint.bound, high) if constraint.at_least is None else (low, constraint.bound)
    if broken[0] < broken[1]:
        axis.axvspan(*broken, color=BREAKS, alpha=0.08, linewidth=0)
    axis.set_xlim(low, high)
    _control(axis)
    _ring(axis, study, standing, xs)
    _names(axis, f"{constraint.metric} / control (shaded: not allowed)", f"{metric} / control")


def _by_key(
    axis: Any, study: Study, standing: Standing, trials: Sequence[Trial], key: str, domain: Range | Choices
) -> None:
    """The objective by one key, and the model's curve through the recommended settings."""
    metric = study.space.objective.metric
    cube = Cube(study.space)
    column = list(study.space.keys).index(key)
    texts: list[str] = []
    if isinstance(domain, Choices):
        order = sorted(domain.choices) if domain.ordered else list(domain.choices)  # type: ignore[type-var]
        texts = [shown(each) for each in order]
        xs = {trial.number: float(order.index(trial.values[key])) for trial in trials}
        values: list[Any] = list(order)
    else:
        xs = {trial.number: float(trial.values[key]) for trial in trials}
        values = [cube.values(_at(cube, column, place / (PLACES - 1)))[key] for place in range(PLACES)]
    base = standing.best.values if standing.best is not None else None
    found = study.estimates([{**base, key: value} for value in values]) if base is not None else None
    if found is not None:
        mean, deviation = found[metric]
        at = [float(place) for place in range(len(values))] if texts else [float(value) for value in values]
        style = {"marker": "_", "linestyle": "none", "markersize": 14} if texts else {}
        axis.plot(at, mean, color=MODEL, linewidth=1.2, label="model, the other keys as recommended", **style)
        axis.fill_between(
            at, mean - 2 * deviation, mean + 2 * deviation, color=MODEL, alpha=0.12, linewidth=0
        )
    _scatter(axis, study, trials, xs, metric)
    if isinstance(domain, Range) and domain.log:
        axis.set_xscale("log")
    if texts:
        axis.set_xticks(range(len(texts)), texts)
    _control(axis)
    _ring(axis, study, standing, xs)
    _names(axis, key, f"{metric} / control")


def _at(cube: Cube, column: int, place: float) -> list[float]:
    point = [0.5] * len(cube.keys)
    point[column] = place
    return point


def _ring(axis: Any, study: Study, standing: Standing, xs: Mapping[int, float]) -> None:
    if standing.best is not None:
        ratio = _ratio(study, standing.best, study.space.objective.metric)
        axis.scatter(
            [xs[standing.best.number]], [ratio], s=130, facecolors="none", edgecolors=BEST, linewidths=1.8
        )


def _control(axis: Any) -> None:
    axis.axhline(1, color="black", linewidth=0.8, linestyle="--")
    axis.grid(alpha=0.25)


def _names(axis: Any, x: str, y: str) -> None:
    axis.set_xlabel(x, parse_math=False)
    axis.set_ylabel(y, parse_math=False)
