"""How a tuning is shown: the table, the picture, the live view."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edldist_launch.record.tally import Figures
from edldist_launch.tune.picture import draw_tuning
from edldist_launch.tune.report import Standing, better, conclusion, markdown, ranked, titles, told
from edldist_launch.tune.study import Study
from edldist_launch.tune.view import Running, TuneView, show_end
from edldist_launch.view.console import PlainConsole
from tests.unit.tuning import ended, figures, space, study


@pytest.fixture(scope="module")
def tuned() -> Study:
    """Two windows; of the last one trial was stopped, one failed, and one breaks the constraint."""
    tuning = study(candidates=8)
    for _ in range(10):
        trial = tuning.next()
        assert trial is not None
        if trial.number == 7:
            tuning.stopped(
                7, {"accuracy": 0.2, "cost": 10.0}, {"accuracy": 0.4, "cost": 10.0}, 5, "far behind"
            )
        elif trial.number == 8:
            tuning.failed(8, "the student | failed\n(exit code 1)")
        else:
            spoilt = {"cost": 30.0} if trial.number == 9 else {}
            ended(tuning, trial.number, **figures(trial.values) | spoilt)
    return tuning


def test_the_report_tells_every_trial_and_the_best_first(tuned: Study) -> None:
    standing = Standing.of(tuned)
    assert standing.best is not None
    text = markdown(tuned, standing, "toy", "edldist run job.yaml --set student.args='[a]'")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 10
    assert (
        rows[0]
        == "| trial | window | --lr | --mode | checkpoint.every_steps | accuracy | cost <= 1.1 | outcome |"
    )
    assert f"| **{standing.best.number}** |" in text
    assert "stopped: far behind" in text
    assert "failed: the student \\| failed (exit code 1)" in text
    assert "breaks a constraint" in text
    assert "6 candidates came to their end, 1 stopped early, 1 failed; 2 controls." in text
    assert "```\nedldist run job.yaml" in text
    order = [trial.number for trial in ranked(tuned)]
    assert order[-2:] == [0, 5], "controls last"
    gains = [tuned.verdict(tuned.trials[number]).gain for number in order[:3]]
    assert gains == sorted(gains, reverse=True)


def test_the_conclusion_says_what_the_best_comes_to(tuned: Study) -> None:
    said = conclusion(tuned, Standing.of(tuned))
    assert "is the best: its accuracy is " in said and "times by the model of all trials" in said
    nothing = study()
    assert conclusion(nothing, Standing.of(nothing)) == "No trial has come to its end."


def told_of(
    *candidates: Mapping[str, float] | None, control: bool = True, **changes: Any
) -> tuple[str, Study]:
    """The conclusion on some candidates, None for one that failed, beside a control of accuracy 0.5."""
    tuning = study(candidates=len(candidates), window=len(candidates), **changes)
    trials = [tuning.next() for _ in range(len(candidates) + 1)]
    assert None not in trials
    if control:
        ended(tuning, 0, accuracy=0.5, cost=10.0)
    for number, metrics in enumerate(candidates, 1):
        if metrics is None:
            tuning.failed(number, "no memory")
        else:
            ended(tuning, number, **metrics)
    return conclusion(tuning, Standing.of(tuning)), tuning


def test_settings_that_are_no_better_than_the_jobs_own_are_not_praised() -> None:
    worse = {"accuracy": 0.1, "cost": 10.0}
    said, tuning = told_of(worse, worse)
    assert said.startswith("Trial 1 is the best: its accuracy is 0.200 times") and said.endswith(
        "nothing better than the control was found, so keep the job's own settings."
    )
    assert not better(tuning, Standing.of(tuning))
    said, tuning = told_of(*[worse] * 5)
    assert "by the model of all trials: nothing better than" in said
    said, tuning = told_of({"accuracy": 0.6, "cost": 10.0}, worse)
    assert said == "Trial 1 is the best: its accuracy is 1.200 times the control's as measured."
    assert better(tuning, Standing.of(tuning))


def test_why_nothing_is_recommended_is_said_as_it_is() -> None:
    said, _ = told_of(None, None, constraints=[])
    assert said == "None of 2 trials came to its end: 2 failed, 0 stopped."
    fine = {"accuracy": 0.9, "cost": 10.0}
    said, tuning = told_of(fine, None, control=False, constraints=[])
    assert said == "None of 2 trials that ended has a control to compare it with."
    assert "done, without a control" in markdown(tuning, Standing.of(tuning), "toy", "")
    assert "constraint" not in told(tuning, tuning.trials[1])
    said, _ = told_of({"accuracy": 0.9, "cost": 30.0}, None)
    assert said == "None of 1 trials that can be compared with a control holds the constraints."


def test_two_constraints_of_one_metric_are_both_named() -> None:
    both = space(constraints=[{"metric": "cost", "at_least": 0.5}, {"metric": "cost", "at_most": 1.1}])
    assert titles(both)[-2] == "cost >= 0.5 <= 1.1"


def test_the_picture_is_drawn_and_not_of_nothing(tuned: Study, tmp_path: Path) -> None:
    assert not draw_tuning(study(), Standing(), tmp_path / "none.png", "nothing")
    assert draw_tuning(tuned, Standing.of(tuned), tmp_path / "tune.png", "tuning of $x_1")
    assert (tmp_path / "tune.png").read_bytes().startswith(b"\x89PNG")


def test_the_view_shows_trials_beside_their_control(tuned: Study) -> None:
    text = io.StringIO()
    console = PlainConsole(file=text, force_terminal=True, width=150, color_system=None)
    running = [
        Running(tuned.trials[5], Figures(step=5, steps=20), 0.75, None),
        Running(tuned.trials[6], Figures(step=7), 0.9, 1.2),
    ]
    with TuneView(console, "tuning toy", 2) as view:
        view.update(Figures(workers=2, samples_per_s=99.0, ranks=2), "training", 1.0)
        view.show(tuned, running, Standing.of(tuned), 60.0, stopping=False)
        shown = text.getvalue()
    assert "control of window 1" in shown and "5/20" in shown
    assert "1.200" in shown
    assert "trials 8/8" in shown and "stopped early 1" in shown and "failed 1" in shown
    assert "best so far: trial" in shown


def test_elsewhere_it_is_a_line_now_and_then(tuned: Study) -> None:
    text = io.StringIO()
    view = TuneView(PlainConsole(file=text), "tuning toy", 2)
    running = [Running(tuned.trials[6], Figures(step=7), 0.9, 1.2)]
    for elapsed_s in (0.0, 1.0, 29.0, 31.0):
        view.show(tuned, running, Standing(), elapsed_s, stopping=False)
    lines = text.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0] == "[0s] trials 8/8 · workers 0/2 · running trial 6 step 7"


def test_the_end_shows_the_best_and_the_command(tuned: Study) -> None:
    text = io.StringIO()
    show_end(PlainConsole(file=text, width=200), tuned, Standing.of(tuned), "edldist run job.yaml --set a=1")
    shown = text.getvalue()
    assert "cost <= 1.1" in shown and "is the best" in shown and "edldist run job.yaml --set a=1" in shown
