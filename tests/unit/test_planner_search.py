"""The plan with the fewest worker seconds, beside all settings that there are."""

from __future__ import annotations

import itertools

import pytest

from edldist_launch.planner.frontier import enough_workers, frontier, sweep
from edldist_launch.planner.replay import Replayed
from edldist_launch.planner.search import Search
from edldist_launch.planner.setting import Loop, Setting
from edldist_launch.planner.target import Option, Target
from tests.unit.planner import pace

PACES = {"cpu": pace(0.004, 0.0005), "gpu": pace(0.003, 0.0001, "gpu", overlaps=True)}
SAMPLES = 100_000
MIXED, PAIR = {"cpu": 2, "gpu": 1}, Loop(2, 100, 0.03)


def search(most: dict[str, int], loop: Loop | None = None) -> Search:
    return Search(loop or Loop(1, 64, 0.02), PACES, most, [32, 64], [2, 8], SAMPLES)


def every(space: Search) -> list[Option]:
    return [
        space.look(Setting.of(size, depth, dict(zip(space.most, counts, strict=True))))
        for size in space.batch_sizes
        for depth in space.depths
        for counts in itertools.product(*(range(most + 1) for most in space.most.values()))
        if sum(counts)
    ]


@pytest.fixture(scope="module")
def options() -> list[Option]:
    """All settings of a small space."""
    return every(search(MIXED, PAIR))


@pytest.mark.parametrize(
    "target",
    [Target("efficiency", 0.9), Target("efficiency", 0.4), Target("deadline", 50.0), Target("budget", 60.0)],
    ids=str,
)
def test_a_plan_is_nearly_as_good_as_the_best_of_all(options: list[Option], target: Target) -> None:
    space = search(MIXED, PAIR)
    found = space.plan(target)
    best = min(options, key=target.place)
    assert found.met == target.met_by(best) == target.met_by(found.best)
    if target.kind == "budget" or not found.met:
        assert best.lasts_s >= 0.9 * found.best.lasts_s
    else:
        assert best.worker_s >= 0.9 * found.best.worker_s
    assert len(space.seen) < len(options)


def test_a_target_that_is_out_of_reach_names_the_nearest() -> None:
    found = search({"cpu": 1}).plan(Target("efficiency", 0.95))
    assert not found.met
    assert found.best.setting.workers == 1
    assert found.best.setting.batch_size == 64  # of which a worker labels most
    cheapest = search({"cpu": 4}).plan(Target("budget", 1.0))
    assert not cheapest.met
    assert cheapest.best.setting.workers == 1


def test_the_fastest_devices_come_first() -> None:
    space = search({"cpu": 4, "gpu": 2})
    assert space.mix(64, 1) == {"gpu": 1, "cpu": 0}
    assert space.mix(64, 3) == {"gpu": 2, "cpu": 1}


def option(workers: int, samples_per_s: float, efficiency: float) -> Option:
    replayed = Replayed(samples_per_s, efficiency, 0.0, 0.0, 0.0, 0.0, 0.0, {})
    return Option(Setting.of(32, 8, {"cpu": workers}), replayed, 1000)


def test_the_frontier_is_what_nothing_else_beats() -> None:
    one, two, three = option(1, 100, 0.5), option(2, 190, 0.95), option(3, 200, 1.0)
    worse, same = option(2, 150, 0.75), option(4, 200, 1.0)
    assert frontier([worse, same, three, two, one]) == [one, two, three]
    assert (one.worker_s, two.lasts_s) == (10, pytest.approx(1000 / 190))


def test_a_sweep_goes_on_until_more_workers_give_nothing() -> None:
    space = search({"cpu": 12})
    swept = sweep(space, Setting.of(32, 8, {"cpu": 2}))
    assert [each.setting.workers for each in swept] == list(range(1, swept[-1].setting.workers + 1))
    assert swept[0].replayed.efficiency < 0.6
    assert enough_workers(swept, at_least=1) == 2
    assert enough_workers(swept, at_least=3) == 3
