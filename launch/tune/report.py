"""How a tuning came out, as text: ``report.md``, and the table at its end. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edldist_launch.tune.journal import Trial
from edldist_launch.tune.space import Constraint, Space
from edldist_launch.tune.study import Study

__all__ = [
    "Standing",
    "best_rows",
    "better",
    "conclusion",
    "counted",
    "counts",
    "markdown",
    "named",
    "ranked",
    "row",
    "shown",
    "titles",
    "told",
]


@dataclass(frozen=True)
class Standing:
    """How a tuning stands.

    Attributes:
        best: the trial that is recommended, or None.
        estimate: what the models make of its objective's ratio: mean and standard deviation; None with too
            few trials.
    """

    best: Trial | None = None
    estimate: tuple[float, float] | None = None

    @classmethod
    def of(cls, study: Study) -> Standing:
        """How it stands now: fits the models."""
        best = study.best()
        if best is None:
            return cls()
        found = study.estimates([best.values])
        if found is None:
            return cls(best)
        mean, deviation = found[study.space.objective.metric]
        return cls(best, (float(mean[0]), float(deviation[0])))


def ranked(study: Study) -> list[Trial]:
    """All trials: those that hold the constraints first, the best first; then the others; controls last."""

    def place(trial: Trial) -> tuple[bool, bool, bool, float, int]:
        verdict = study.verdict(trial)
        gain = -math.inf if math.isnan(verdict.gain) else verdict.gain
        return (trial.control, not verdict.feasible, trial.state != "done", -gain, trial.number)

    return sorted(study.trials, key=place)


def titles(space: Space) -> list[str]:
    """Of the columns of ``row``."""
    metrics = [
        " ".join([name, *(_bound(each) for each in space.constraints if each.metric == name)])
        for name in space.metrics
    ]
    return ["trial", "window", *space.keys, *metrics, "outcome"]


def row(study: Study, trial: Trial) -> list[str]:
    """One trial: its settings, its ratios to the control, and what became of it."""
    verdict = study.verdict(trial)
    ratios = [
        f"{verdict.ratios[name]:.3f}" if name in verdict.ratios else "-" for name in study.space.metrics
    ]
    return [
        str(trial.number),
        str(trial.window),
        *(shown(trial.values[key]) for key in study.space.keys),
        *ratios,
        outcome(study, trial),
    ]


def named(trial: Trial) -> str:
    """What people call it."""
    return f"control of window {trial.window}" if trial.control else f"trial {trial.number}"


def told(study: Study, trial: Trial) -> str:
    """What a trial that has ended came to, in a line."""
    verdict = study.verdict(trial)
    if trial.state == "failed":
        return f"{named(trial)} failed: {trial.reason}"
    if trial.control or not verdict.ratios:
        known = [name for name in study.space.metrics if name in trial.metrics]
        figures = ", ".join(f"{name} {trial.metrics[name]:.4g}" for name in known)
        return f"{named(trial)} {trial.state}: {figures}"
    ratios = ", ".join(f"{name} {ratio:.3f}" for name, ratio in verdict.ratios.items())
    held = ", breaks a constraint" if trial.state == "done" and verdict.known and not verdict.feasible else ""
    return f"{named(trial)} {trial.state}: {ratios} of the control's{held}"


def outcome(study: Study, trial: Trial) -> str:
    """What became of a trial, in few words."""
    if trial.state == "done":
        if trial.control:
            return "control"
        verdict = study.verdict(trial)
        if not verdict.known:
            return "done, without a control to compare it with"
        if not verdict.feasible:
            return "breaks a constraint"
        return "holds" if study.space.constraints else "done"
    if trial.state in ("stopped", "failed"):
        return f"{trial.state}: {trial.reason}"
    return trial.state


def shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def conclusion(study: Study, standing: Standing) -> str:
    """The result in a sentence or two."""
    best, objective = standing.best, study.space.objective
    if best is None:
        return _without_a_best(study)
    verdict = study.verdict(best)
    said = (
        f"Trial {best.number} is the best: its {objective.metric} is "
        f"{verdict.ratios[objective.metric]:.3f} times the control's as measured"
    )
    if standing.estimate is not None:
        mean, deviation = standing.estimate
        said += f", and {mean:.3f} ± {deviation:.3f} times by the model of all trials"
    if not better(study, standing):
        return f"{said}: nothing better than the control was found, so keep the job's own settings."
    if standing.estimate is not None and study.space.gain(mean) < 2 * deviation:
        return f"{said}. That is not surely better than the control: more trials would tell."
    return f"{said}."


def better(study: Study, standing: Standing) -> bool:
    """Whether the recommended settings are better than the job's own: by the models, or as measured."""
    if standing.best is None:
        return False
    objective = study.space.objective.metric
    measured = study.verdict(standing.best).ratios[objective]
    return study.space.gain(measured if standing.estimate is None else standing.estimate[0]) > 0


def _without_a_best(study: Study) -> str:
    number = counts(study)
    ended = number["done"] + number["stopped"] + number["failed"]
    compared = sum(
        study.verdict(each).known for each in study.trials if each.state == "done" and not each.control
    )
    if not ended:
        return "No trial has come to its end."
    if not number["done"]:
        return (
            f"None of {ended} trials came to its end: {number['failed']} failed, {number['stopped']} stopped."
        )
    if not compared:
        return f"None of {ended} trials that ended has a control to compare it with."
    return f"None of {compared} trials that can be compared with a control holds the constraints."


def counts(study: Study) -> Mapping[str, int]:
    """How many candidates are done, stopped and failed, and how many controls are done."""
    candidates = [trial for trial in study.trials if not trial.control]
    return {
        **{state: sum(each.state == state for each in candidates) for state in ("done", "stopped", "failed")},
        "controls": sum(trial.control and trial.state == "done" for trial in study.trials),
    }


def counted(study: Study) -> str:
    """The same in words."""
    number_of = counts(study)
    return (
        f"{number_of['done']} candidates done, {number_of['stopped']} stopped early, {number_of['failed']} "
        f"failed, {number_of['controls']} controls"
    )


def markdown(study: Study, standing: Standing, name: str, command: str) -> str:
    """The whole report.

    Args:
        name: of the job.
        command: that runs the job with the best settings; empty without any.
    """
    number = counts(study)
    lines = [
        f"# Tuning of {name}",
        "",
        conclusion(study, standing),
        "",
        f"{number['done']} candidates came to their end, {number['stopped']} stopped early, "
        f"{number['failed']} failed; {number['controls']} controls. Figures are ratios to the control of the "
        "same window; after a metric's name stands its constraint.",
        "",
    ]
    if command:
        lines += ["```", command, "```", ""]
    head = titles(study.space)
    lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for trial in ranked(study):
        cells = [each.replace("|", "\\|") for each in row(study, trial)]
        if standing.best is not None and trial.number == standing.best.number:
            cells[0] = f"**{cells[0]}**"
        lines.append(f"| {' | '.join(' '.join(cell.split()) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def best_rows(study: Study, most: int) -> Sequence[Trial]:
    """The candidates that a person wants to see: the best ones."""
    return [trial for trial in ranked(study) if not trial.control and trial.ended][:most]


def _bound(constraint: Constraint) -> str:
    return f"{'<=' if constraint.at_least is None else '>='} {constraint.bound:g}"
