"""Which trial runs next, and what trials amount to."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from edldist.errors import ConfigError
from edldist_launch.tune.journal import Trial
from edldist_launch.tune.search import Search, Seen
from edldist_launch.tune.settings import Settings
from edldist_launch.tune.study import Study
from tests.unit.tuning import ended, figures, job, space, study


class Told(Search):
    """Remembers what it was asked with."""

    def __init__(self) -> None:
        super().__init__(space(), Settings(space(), job()).base)
        self.asked: list[tuple[list[Seen], int, int]] = []

    def propose(self, seen: Sequence[Seen], count: int, turn: int) -> list[dict[str, object]]:
        self.asked.append((list(seen), count, turn))
        return super().propose(seen, count, turn)


def start(tuning: Study, count: int) -> list[Trial]:
    return [trial for _ in range(count) if (trial := tuning.next()) is not None]


def test_a_window_is_a_control_and_candidates_with_a_seed_of_their_own() -> None:
    tuning = study()
    first = start(tuning, 5)
    assert [(each.number, each.control, each.window, each.seed) for each in first] == [
        (0, True, 0, 3),
        *((number, False, 0, 3) for number in (1, 2, 3, 4)),
    ]
    assert first[0].values == {"--lr": 0.02, "--mode": "a", "checkpoint.every_steps": 50}
    sixth = tuning.next()
    assert sixth is not None
    assert (sixth.control, sixth.window, sixth.seed) == (True, 1, 4)
    assert all(each.state == "running" for each in tuning.trials[:6])
    assert all(each.state == "planned" for each in tuning.trials[6:])


def test_a_window_is_proposed_out_of_what_has_ended_by_then() -> None:
    told = Told()
    tuning = study(search=told, constraints=[])
    start(tuning, 5)
    ended(tuning, 0, accuracy=0.8)
    ended(tuning, 2, accuracy=0.9)
    tuning.failed(3, "it broke")
    start(tuning, 1)
    seen, count, turn = told.asked[1]
    assert (len(told.asked), count, turn) == (2, 4, 1)
    assert [each.ratios for each in seen] == [{"accuracy": pytest.approx(1.125)}, {}]
    assert [each.candidate for each in seen] == [True, False]


def test_feedback_without_its_control_waits_for_it() -> None:
    told = Told()
    tuning = study(search=told, constraints=[], controls=2)
    start(tuning, 6)
    ended(tuning, 0, accuracy=0.8)
    ended(tuning, 2, accuracy=0.9)
    assert tuning.control(0) is None
    assert tuning.verdict(tuning.trials[2]).ratios == {}
    ended(tuning, 1, accuracy=1.0)
    assert tuning.verdict(tuning.trials[2]).ratios == {"accuracy": pytest.approx(1.0)}


def test_so_many_candidates_are_tried_and_no_more() -> None:
    tuning = study(candidates=6)
    while not tuning.over:
        trial = tuning.next()
        assert trial is not None
        ended(tuning, trial.number, **figures(trial.values))
    assert tuning.next() is None
    assert [trial.control for trial in tuning.trials] == [True, *[False] * 4, True, *[False] * 2]
    best = tuning.best()
    assert best is not None and tuning.verdict(best).feasible


def test_what_was_under_way_when_a_process_died_is_due_first_and_counted_once() -> None:
    before = study()
    start(before, 3)
    ended(before, 0, accuracy=0.8, cost=1.0)
    again = Study(before.space, Settings(before.space, job()).base, 8, before.trials)
    assert [each.number for each in start(again, 2)] == [1, 2]
    third = again.next()
    assert third is not None and third.number == 3, "then those that were planned"
    assert len(again.trials) == 5


def test_more_trials_than_before_go_on_and_fewer_end_what_there_is() -> None:
    tuning = study(candidates=4)
    for trial in start(tuning, 5):
        ended(tuning, trial.number, accuracy=0.8, cost=1.0)
    assert tuning.over
    base = Settings(tuning.space, job()).base
    assert Study(tuning.space, base, 2, tuning.trials).over
    more = Study(tuning.space, base, 6, tuning.trials)
    assert not more.over
    trial = more.next()
    assert trial is not None and (trial.number, trial.control, trial.window) == (5, True, 1)


@pytest.mark.parametrize(
    ("reported", "says"),
    [
        ({"cost": 1.0}, "the control never reported the metric 'accuracy'.*It reported cost"),
        ({}, "never reported the metric 'accuracy'.*It reported nothing"),
        ({"accuracy": float("nan"), "cost": 1.0}, "the control's accuracy is nan, which is no finite number"),
        ({"accuracy": 0.0, "cost": 1.0}, "the control's accuracy is 0: a ratio to it says nothing"),
        ({"accuracy": -3.0, "cost": 1.0}, "the control's accuracy is -3: a ratio to it says nothing"),
        ({"accuracy": 0.5}, "never reported the metric 'cost'"),
    ],
)
def test_a_control_to_which_nothing_can_be_a_ratio_ends_the_tuning(
    reported: dict[str, float], says: str
) -> None:
    tuning = study()
    start(tuning, 1)
    metrics = {name: value for name, value in reported.items() if value == value}
    with pytest.raises(ConfigError, match=says):
        tuning.ended(0, metrics, dict[str, object](reported), 5)


def test_a_candidate_without_its_figures_has_failed_with_the_reason() -> None:
    tuning = study()
    start(tuning, 4)
    assert tuning.ended(1, {"cost": 1.0}, {"cost": 1.0}, 5).reason == "it never reported accuracy"
    trial = tuning.ended(2, {"cost": 1.0}, {"cost": 1.0, "accuracy": float("inf")}, 5)
    assert (trial.state, trial.reason) == ("failed", "it reported accuracy inf")


def test_one_that_was_stopped_is_compared_at_its_step_and_holds_nothing() -> None:
    tuning = study()
    start(tuning, 2)
    tuning.stopped(1, {"accuracy": 0.2, "cost": 1.0}, {"accuracy": 0.4, "cost": 1.0}, 5, "far behind")
    verdict = tuning.verdict(tuning.trials[1])
    assert (verdict.ratios["accuracy"], verdict.feasible, verdict.gain) == (0.5, False, -0.5)
