"""The simulated autoscaler: the laws of Kubernetes as they are known, and what comes of a load."""

from __future__ import annotations

import pytest

from edldist_benchmarks.autoscale import simulate
from edldist_benchmarks.engines import ENGINES, Engine
from edldist_benchmarks.hpa import Hpa, Keda, KubernetesLaw
from edldist_benchmarks.loads import LENGTH_S, LOADS, Load


class TestHpa:
    @pytest.mark.parametrize(
        ("value", "replicas", "result"),
        [
            (5.0, 5, 5),
            (5.5, 5, 5),  # within the tolerance of a tenth
            (5.6, 5, 6),
            (4.5, 5, 5),
            (4.4, 5, 5),  # five is the least that gives 4.4
            (3.0, 5, 3),
            (9.0, 2, 6),  # four more at most in a period
            (30.0, 6, 12),  # or as many again
            (0.0, 3, 1),
            (99.0, 16, 16),
            (5.0, 0, 0),  # none is left alone
            (5.0, 20, 16),
        ],
    )
    def test_of_one_look(self, value: float, replicas: int, result: int) -> None:
        assert Hpa(1, 16, down_window_s=0.0).sync(0.0, value, replicas) == result

    def test_growing_is_bounded_over_a_period(self) -> None:
        hpa = Hpa(1, 100)
        assert hpa.sync(0.0, 50.0, 2) == 6
        assert hpa.sync(5.0, 50.0, 6) == 6
        assert hpa.sync(15.0, 50.0, 6) == 12

    def test_going_down_waits_for_the_window(self) -> None:
        hpa = Hpa(1, 100, down_window_s=300.0)
        assert hpa.sync(0.0, 8.0, 8) == 8
        replicas = [hpa.sync(float(now), 2.0, 8) for now in range(15, 330, 15)]
        assert replicas[:19] == [8] * 19 and replicas[-1] == 2


class TestKeda:
    def test_acts_between_none_and_one_only(self) -> None:
        keda = Keda(least=0, cooldown_s=300.0)
        assert keda.poll(0.0, 4.0, 0) == 1
        assert keda.poll(30.0, 4.0, 3) == 3
        assert keda.poll(330.0, 0.0, 3) == 3
        assert keda.poll(331.0, 0.0, 3) == 0
        assert Keda(least=1).poll(1e9, 0.0, 3) == 3

    def test_wakes_a_group_that_the_hpa_then_grows(self) -> None:
        law = KubernetesLaw(Hpa(1, 16, down_window_s=0.0), Keda(0))
        replicas = 0
        seen = []
        for now in range(0, 61):
            replicas = law.replicas(float(now), 8.0, replicas)
            seen.append(replicas)
        assert seen[0] == 5 and seen[14] == 5 and seen[15] == 8 and seen[-1] == 8


def of(name: str) -> Load:
    return next(load for load in LOADS if load.name == name)


@pytest.mark.parametrize("engine", [ENGINES[0], ENGINES[2]], ids=lambda engine: engine.name)
@pytest.mark.parametrize("load", ["steady", "steps", "recorded"])
def test_the_autoscaler_is_nearly_as_good_as_who_knows_the_load(engine: Engine, load: str) -> None:
    ours, oracle = (simulate(of(load), engine, who) for who in ("demand", "oracle"))
    assert ours.efficiency >= 0.9 * oracle.efficiency
    assert ours.worker_s <= 1.15 * oracle.worker_s
    assert ours.changes <= {"steady": 3, "steps": 6 * 3, "recorded": 60}[load]


def test_the_recorded_load_is_that_of_a_job_whose_ranks_come_and_go() -> None:
    ranks = [of("recorded").ranks(second) for second in range(LENGTH_S)]
    assert 12 <= sum(ranks) / LENGTH_S <= 14 and min(ranks) == 0 and 20 <= max(ranks) <= 35
    assert sum(a != b for a, b in zip(ranks, ranks[1:], strict=False)) > 50


def test_at_a_steady_load_nothing_changes_after_the_beginning() -> None:
    run = simulate(of("steady"), ENGINES[0], "demand")
    assert len(set(run.wanted[300:])) == 1


def test_a_fixed_fleet_stays_as_it_is() -> None:
    run = simulate(of("steps"), ENGINES[0], "most")
    assert run.changes == 0 and run.efficiency > 0.99 and set(run.wanted) == {16}
