"""What is proposed and recommended, out of what was seen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from edldist_launch.tune.cube import Cube, Floats
from edldist_launch.tune.model import RatioModel
from edldist_launch.tune.search import Search, Seen
from edldist_launch.tune.space import Space

SPACE = Space.model_validate(
    {
        "keys": {"--x": {"low": 0.0, "high": 1.0}, "--y": {"low": 0.0, "high": 1.0}},
        "objective": {"metric": "gain", "goal": "max"},
        "constraints": [{"metric": "cost", "at_most": 1.1}],
    }
)
BASE = {"--x": 0.2, "--y": 0.2}


def ratios(values: Mapping[str, Any], noise: float = 0.0) -> dict[str, float]:
    """The gain grows along x and has its best at y = 0.7; cost grows with x and breaks at 0.6."""
    x, y = values["--x"], values["--y"]
    gain = 1 + 0.5 * (x - 0.2) - ((y - 0.7) ** 2 - 0.25)
    return {"gain": gain + noise, "cost": 1 + 0.25 * (x - 0.2)}


def seen(count: int, seed: int = 0, noise: float = 0.0) -> list[Seen]:
    rng = np.random.default_rng(seed)
    points = [Cube(SPACE).values(point) for point in rng.random((count, 2))]
    return [Seen(values, ratios(values, noise * rng.normal())) for values in points]


def test_a_model_is_sure_where_it_has_seen_and_of_the_control_and_unsure_elsewhere() -> None:
    cube = Cube(SPACE)
    found = seen(30, noise=0.01)
    features = cube.features(np.array([cube.point(each.values) for each in found]))
    base = cube.features(cube.point(BASE)[None])
    model = RatioModel(
        features, np.array([each.ratios["gain"] for each in found]), np.zeros(30), base[0], seed=0
    )
    at_base, sure = model.estimate(base)
    assert at_base[0] == pytest.approx(1, abs=0.005) and sure[0] < 0.01
    places = [{"--x": 0.4, "--y": 0.6}, {"--x": 0.7, "--y": 0.3}]
    mean, deviation = model.estimate(cube.features(np.array([cube.point(each) for each in places])))
    assert mean == pytest.approx([ratios(each)["gain"] for each in places], abs=0.05)
    assert (deviation < 0.05).all()
    assert 0.003 < model.noise < 0.05
    far = np.array([[3.0, 3.0]])
    assert model.estimate(far)[1][0] > 5 * deviation.max()


def test_draws_have_the_posteriors_mean_and_spread() -> None:
    cube = Cube(SPACE)
    found = seen(12)
    features = cube.features(np.array([cube.point(each.values) for each in found]))
    base = cube.features(cube.point(BASE)[None])[0]
    model = RatioModel(
        features, np.array([each.ratios["cost"] for each in found]), np.zeros(12), base, seed=0
    )
    places = np.random.default_rng(1).random((5, 2)) * 1.5
    drawn = model.draw(places, 4000, np.random.default_rng(2))
    mean, deviation = model.estimate(places)
    assert drawn.shape == (4000, 5)
    assert (np.abs(drawn.mean(axis=0) - mean) <= 4 * deviation / math.sqrt(4000) + 1e-9).all()
    assert drawn.std(axis=0) == pytest.approx(deviation, rel=0.1, abs=1e-9)


def test_what_a_window_shares_is_told_from_what_settings_do_and_from_noise() -> None:
    cube, rng = Cube(SPACE), np.random.default_rng(3)
    found = seen(120, noise=0.003)
    windows = np.arange(120.0) // 20
    offsets = rng.normal(size=6) * 0.04  # of each window's control, which is in all ratios of the window
    measured = np.array([each.ratios["gain"] for each in found]) + offsets[windows.astype(int)]
    features = cube.features(np.array([cube.point(each.values) for each in found]))
    base = cube.features(cube.point(BASE)[None])[0]
    places = rng.random((40, 2))
    true = np.array([ratios(cube.values(place))["gain"] for place in places])

    def error(windows: Floats) -> tuple[float, float]:
        model = RatioModel(features, measured, windows, base, seed=0)
        mean, deviation = model.estimate(cube.features(places))
        return float(np.std(mean - true)), float(deviation.mean())

    (told, _), (untold, _) = error(windows), error(np.zeros(120))
    assert told < 0.7 * untold


def test_before_anything_is_known_the_space_is_filled_and_the_control_looked_around() -> None:
    proposed = Search(SPACE, BASE).propose([], 20, turn=0)
    for key in ("--x", "--y"):
        assert len({math.floor(values[key] * 10) for values in proposed}) >= 9
    near = [abs(values["--x"] - 0.2) < 0.3 and abs(values["--y"] - 0.2) < 0.3 for values in proposed[-5:]]
    assert sum(near) >= 3


def test_proposals_are_the_same_for_the_same_trials_and_turn() -> None:
    search, found = Search(SPACE, BASE), seen(10)
    assert search.propose(found, 5, turn=3) == Search(SPACE, BASE).propose(found, 5, turn=3)
    assert search.propose(found, 5, turn=3) != search.propose(found, 5, turn=4)


def test_proposals_gather_where_the_best_is_that_holds_the_constraint() -> None:
    proposed = Search(SPACE, BASE).propose(seen(40, noise=0.01), 30, turn=1)
    assert len({tuple(values.values()) for values in proposed}) == 30, "none is proposed twice at a time"
    xs, ys = (np.array([values[key] for values in proposed]) for key in ("--x", "--y"))
    assert (xs < 0.64).mean() > 0.85, "beyond 0.6 the constraint breaks"
    assert np.median(xs) > 0.5 and abs(np.median(ys) - 0.7) < 0.1


def test_where_a_draw_holds_nowhere_the_least_broken_point_is_tried() -> None:
    impossible = SPACE.model_copy(
        update={"constraints": [SPACE.constraints[0].model_copy(update={"at_most": 0.5})]}
    )
    proposed = Search(impossible, BASE).propose(seen(30), 10, turn=1)
    assert np.mean([values["--x"] for values in proposed]) < 0.15, "cost is least at 0"


def test_what_fails_is_avoided_and_an_explosion_does_not_blind_the_model() -> None:
    found = seen(40, noise=0.01)
    bad = [
        Seen(each.values, {} if place % 2 else {"gain": -50.0, "cost": 900.0})
        if each.values["--x"] > 0.4
        else each
        for place, each in enumerate(found)
    ]
    proposed = Search(SPACE, BASE).propose(bad, 20, turn=1)
    assert np.mean([values["--x"] < 0.45 for values in proposed]) > 0.8
    assert np.median([values["--y"] for values in proposed]) > 0.5, "it still sees the rest"


def test_a_recommendation_holds_surely_and_is_not_the_luckiest() -> None:
    search, found = Search(SPACE, BASE), seen(60, noise=0.05)
    best = search.recommend(found)
    assert best is not None
    true = ratios(found[best].values)
    assert true["cost"] <= 1.1
    holding = [ratios(each.values)["gain"] for each in found if SPACE.holds(ratios(each.values))]
    assert true["gain"] > np.quantile(holding, 0.9)


def test_one_that_was_stopped_is_not_recommended_and_none_where_none_holds() -> None:
    search, found = Search(SPACE, BASE), seen(20)
    best = search.recommend(found)
    assert best is not None
    stopped = [Seen(each.values, each.ratios, candidate=place != best) for place, each in enumerate(found)]
    assert search.recommend(stopped) not in (None, best)
    dear = [Seen(each.values, each.ratios | {"cost": 2.0}) for each in found]
    assert search.recommend(dear) is None
    assert search.recommend([]) is None


def test_few_trials_are_judged_by_their_own_figures() -> None:
    few = [
        Seen({"--x": x, "--y": 0.5}, {"gain": gain, "cost": cost})
        for x, gain, cost in ((0.1, 1.2, 1.0), (0.2, 1.5, 1.2), (0.3, 1.3, 1.05))
    ]
    assert Search(SPACE, BASE).recommend(few) == 2
    assert Search(SPACE, BASE).estimates(few, [BASE]) is None


def test_less_is_better_where_the_goal_says_so() -> None:
    space = SPACE.model_copy(
        update={"objective": SPACE.objective.model_copy(update={"goal": "min"}), "constraints": []}
    )
    proposed = Search(space, BASE).propose(seen(40, noise=0.01), 20, turn=1)
    assert np.median([values["--x"] for values in proposed]) < 0.2
    assert np.median([values["--y"] for values in proposed]) < 0.2
