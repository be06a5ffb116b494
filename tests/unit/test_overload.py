"""Overload: steps in their stated order, with hysteresis."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edldist.coordinator.overload.overload import DOWN_S, OVER, UNDER, UP_S, Overload, Pressure, Step


def climb(
    overload: Overload, ratio: float, seconds: int, degradable: int = 0, refusable: bool = True
) -> list[Step]:
    """The steps of one look a second."""
    start = getattr(overload, "at", 0)
    overload.at = start + seconds  # type: ignore[attr-defined]
    pressure = Pressure(ratio, ratio)
    steps = []
    for second in range(start, start + seconds):
        overload.look(pressure, degradable, refusable, float(second))
        steps.append(overload.step)
    return steps


def test_the_steps_come_one_after_the_other_and_go_in_the_opposite_order():
    overload = Overload()
    up = climb(overload, 2.0, 30, degradable=2)
    order = [Step.NONE, Step.CREDITS, Step.STORE, Step.DEGRADE, Step.REFUSE]
    assert list(dict.fromkeys(up)) == order and up == sorted(up)
    assert up.count(Step.DEGRADE) == 2 * UP_S, "one job after the other"
    down = climb(overload, 0.5, 60, degradable=2)
    assert list(dict.fromkeys(down)) == order[::-1] and down == sorted(down, reverse=True)
    assert [down.count(step) for step in order[:0:-1]] == [DOWN_S, 2 * DOWN_S, DOWN_S, DOWN_S]


def test_rungs_that_would_relieve_nobody_are_not_there():
    assert climb(Overload(), 2.0, 60, refusable=False)[-1] is Step.STORE
    assert Step.DEGRADE not in climb(Overload(), 2.0, 60)
    overload = Overload()
    assert climb(overload, 2.0, 30, degradable=3)[-1] is Step.REFUSE
    assert climb(overload, 1.0, 1, refusable=False)[-1] is Step.STORE, "those jobs are gone"
    assert overload.degraded == 0


@pytest.mark.parametrize("pressure", [None, Pressure(1.0, 1.0)])
def test_a_rung_that_is_there_no_more_is_a_change_whatever_is_asked(pressure: Pressure | None):
    overload = Overload()
    climb(overload, 2.0, 30)
    assert overload.step is Step.REFUSE
    assert overload.look(pressure, 0, False, 31.0) and overload.step is Step.STORE
    assert not overload.look(pressure, 0, False, 32.0)


@pytest.mark.parametrize("ratio", [OVER, OVER - 0.01, 1.0, UNDER + 0.01, UNDER])
def test_between_too_few_and_enough_all_stays_as_it_is(ratio: float):
    overload = Overload()
    assert set(climb(overload, ratio, 100)) == {Step.NONE}
    climb(overload, 2.0, 5)
    assert overload.level == 1
    assert set(climb(overload, ratio, 100)) == {Step.CREDITS}


def test_a_moment_is_no_overload_and_nobody_knowing_is_neither():
    overload = Overload()
    for second in range(60):
        pressure = [Pressure(2.0, 2.0), Pressure(2.0, 2.0), None, Pressure(1.0, 1.0)][second % 4]
        assert not overload.look(pressure, 0, True, float(second))
    climb(overload, 2.0, 70)
    level = overload.level
    for second in range(100, 200):
        assert not overload.look(None, 0, True, float(second))
    assert overload.level == level


def test_a_job_is_degraded_no_less_while_that_would_be_too_much_again():
    overload = Overload()
    climb(overload, 2.0, 3 * int(UP_S) + 1, degradable=1, refusable=False)
    assert overload.step is Step.DEGRADE
    for second in range(20, 200):
        assert not overload.look(Pressure(0.5, 1.3), 1, False, float(second)), "it would climb again"
    for second in range(200, 215):
        overload.look(Pressure(0.5, 0.8), 1, False, float(second))
    assert overload.step is Step.STORE


@settings(max_examples=60, deadline=None)
@given(ratios=st.lists(st.floats(0, 3), min_size=1, max_size=200), degradable=st.integers(0, 3))
def test_it_moves_one_rung_at_a_time_and_never_twice_within_the_time_for_one(
    ratios: list[float], degradable: int
):
    overload, moved_at = Overload(), -100.0
    for second, ratio in enumerate(ratios):
        before = overload.level
        overload.look(Pressure(ratio, ratio), degradable, True, float(second))
        assert abs(overload.level - before) <= 1
        if overload.level != before:
            assert second - moved_at >= min(UP_S, DOWN_S)
            assert ratio > OVER if overload.level > before else ratio < UNDER
            moved_at = second
