"""Settings as points of a cube, and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edldist_launch.tune.cube import Cube
from tests.unit.tuning import space

CUBE = Cube(space())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_settings_lie_within_their_bounds_and_come_back_from_their_point(point: list[float]) -> None:
    values = CUBE.values(point)
    assert 0.001 <= values["--lr"] <= 0.1
    assert values["--mode"] in ("a", "b", "c")
    assert isinstance(values["checkpoint.every_steps"], int) and 10 <= values["checkpoint.every_steps"] <= 100
    assert CUBE.values(CUBE.point(values)) == values
    assert values["--lr"] == float(f"{values['--lr']:.4g}"), "people read and type it"


def test_a_log_range_is_parted_by_factors() -> None:
    assert CUBE.values([0.5, 0.1, 0.0]) == {"--lr": 0.01, "--mode": "a", "checkpoint.every_steps": 10}
    assert CUBE.ends("--lr") == (0.001, 0.1)


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ({"--lr": 0.5}, "a number from 0.001 to 0.1"),
        ({"--lr": "fast"}, "a number from 0.001 to 0.1"),
        ({"--lr": True}, "a number from 0.001 to 0.1"),
        ({"--mode": "z"}, "one of a, b, c"),
        ({"checkpoint.every_steps": 10.5}, "a whole number from 10 to 100"),
    ],
)
def test_a_value_outside_of_the_space_has_no_point(change: dict[str, object], allowed: str) -> None:
    values = {"--lr": 0.01, "--mode": "a", "checkpoint.every_steps": 20} | change
    with pytest.raises(ValueError) as refused:
        CUBE.point(values)
    assert refused.value.args == (next(iter(change)), next(iter(change.values())), allowed)


def test_points_spread_over_every_part_of_every_key() -> None:
    points = CUBE.spread(50, np.random.default_rng(0))
    assert points.shape == (50, 3)
    for column in (0, 2):
        assert len(set(np.floor(points[:, column] * 25).astype(int))) >= 23
    assert {CUBE.values(point)["--mode"] for point in points} == {"a", "b", "c"}


def test_points_around_some_differ_from_them_and_stay_inside() -> None:
    centre = CUBE.point({"--lr": 0.01, "--mode": "a", "checkpoint.every_steps": 55})
    points = CUBE.around(centre[None], 300, np.random.default_rng(0))
    assert ((points >= 0) & (points <= 1)).all()
    assert np.median(np.abs(points - centre).max(axis=1)) < 0.5
    assert (np.abs(points[:, 0] - centre[0]) < 0.25).mean() > 0.6
    assert {CUBE.values(point)["--mode"] for point in points} == {"a", "b", "c"}


def test_choices_without_an_order_are_equally_far_apart_and_numbers_are_in_order() -> None:
    rows = [{"--lr": 0.01, "--mode": mode, "checkpoint.every_steps": 10} for mode in "abc"]
    features = CUBE.features(np.array([CUBE.point(row) for row in rows]))
    assert features.shape == (3, 5)
    apart = [math.dist(features[i], features[j]) for i, j in ((0, 1), (1, 2), (0, 2))]
    assert apart == pytest.approx([1, 1, 1])
    ordered = Cube(space(keys={"--batch": {"choices": [64, 16, 32]}}))
    assert [ordered.values([place])["--batch"] for place in (0.1, 0.5, 0.9)] == [16, 32, 64]
    assert ordered.features(np.array([[0.5]])).shape == (1, 1)
