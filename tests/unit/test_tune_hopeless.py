"""Which trials are ended early, and which are not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edldist_launch.tune.hopeless import Curves, Past, hopeless
from edldist_launch.tune.space import Space
from tests.unit.tuning import space

STEPS = range(10, 101, 10)
SPACE = space(constraints=[])


def curve(of: Callable[[int], float], steps: Sequence[int] = STEPS) -> Curves:
    curves = Curves()
    for step in steps:
        curves.add(step, {"accuracy": of(step)})
    return curves


def rising(to: float) -> Curves:
    return curve(lambda step: to * (1 - math.exp(-step / 40)))


CONTROL = rising(0.8)
PAST = [Past(rising(to), CONTROL, to / 0.8 - 1) for to in (0.7, 0.75, 0.78, 0.82, 0.85, 0.9)]


def until(step: int, to: float = 0.4) -> Curves:
    return curve(lambda at: to * (1 - math.exp(-at / 40)), [at for at in STEPS if at <= step])


def test_the_last_report_until_a_step_is_what_stood_there() -> None:
    curves = Curves()
    curves.add(10, {"a": 1.0, "note": "x", "flag": True})
    curves.add(30, {"a": 3.0})
    curves.add(10, {"a": 1.5})
    assert [curves.at("a", step) for step in (9, 10, 29, 30, math.inf)] == [None, 1.5, 1.5, 3.0, 3.0]
    assert (curves.steps("a"), curves.steps("note"), curves.step) == ([10, 30], [], 30)
    assert curves.last(20) == {"a": 1.5}


def test_one_that_is_far_behind_the_control_and_the_others_is_stopped() -> None:
    reason = hopeless(SPACE, until(40), CONTROL, PAST)
    assert reason == (
        "accuracy was 50.0% worse than the control at step 40, and worse than three quarters of the trials "
        "that came to their end"
    )


@pytest.mark.parametrize(
    ("trial", "past", "why"),
    [
        (until(20), PAST, "it has not come a quarter of the way, nor reported three times"),
        (until(40), PAST[:3], "three trials are no measure"),
        (until(40, 0.81), PAST, "it is ahead of the control"),
        (until(40, 0.76), PAST, "it is behind, and not among the worst"),
        (
            until(40),
            [*PAST, Past(until(100, 0.3), CONTROL, 0.05)],
            "one that was as far behind came out ahead",
        ),
        (curve(lambda step: 0.9 if step == 30 else 0.1, [10, 20, 30, 40]), PAST, "it was ahead a moment ago"),
        (rising(0.4), PAST, "it is at its end: nothing would be saved"),
        (Curves(), PAST, "it has reported nothing"),
    ],
)
def test_one_with_a_chance_goes_on(trial: Curves, past: list[Past], why: str) -> None:
    assert hopeless(SPACE, trial, CONTROL, past) == "", why


def test_one_whose_figures_are_not_finite_is_stopped_whatever_the_others_did() -> None:
    broken = curve(lambda step: 0.1 if step == 10 else math.nan, [10, 20, 30, 40])
    assert hopeless(SPACE, broken, CONTROL, []) == "accuracy is not finite at steps 20, 30, 40"
    assert hopeless(SPACE, curve(lambda step: math.nan, [10, 20]), CONTROL, []) == ""


def test_less_is_better_where_the_goal_says_so() -> None:
    falling = space(constraints=[], objective={"metric": "accuracy", "goal": "min"})
    assert hopeless(falling, until(40, 1.6), CONTROL, PAST)
    assert not hopeless(falling, until(40, 0.4), CONTROL, PAST)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(0.5, 1.0), min_size=0, max_size=12), st.floats(0.5, 1.0), st.integers(1, 10))
def test_one_that_is_better_than_any_before_it_is_never_stopped(
    others: list[float], own: float, reports: int
) -> None:
    past = [Past(rising(to), CONTROL, to / 0.8 - 1) for to in others]
    best = max([*others, own])
    trial = curve(lambda step: best * (1 - math.exp(-step / 40)), list(STEPS)[:reports])
    assert hopeless(Space.model_validate(SPACE.model_dump()), trial, CONTROL, past) == ""
