"""Rows that take their figures from scripts of their own say the same as these, beside the budget."""

from __future__ import annotations

import pytest

from edldist_benchmarks import crowds, restarts
from edldist_benchmarks.figures import Settings


def test_restarts_stand_beside_plain_torchrun(monkeypatch: pytest.MonkeyPatch):
    def measure(repeats: int) -> list[dict[str, object]]:
        runs = {"edldist": [6.0] * repeats, "plain torchrun": [4.0] * repeats}
        row = {"name": "a student node killed: first step", "edldist_s": 6.0, "torchrun_s": 4.0, "ratio": 1.5}
        return [row | {"budget": 1.2, "runs": runs, "start_cpu_s": {"edldist": 2.0, "plain torchrun": 1.6}}]

    monkeypatch.setattr(restarts, "measure", measure)
    figure, cpu = restarts.measure_restarts(Settings(repeats=9)).figures
    assert (figure.value, figure.limit, figure.ratio, figure.met) == (6.0, 4.0, 1.5, False)
    assert len(figure.runs["value"]) == restarts.MAX_REPEATS
    assert (cpu.value, cpu.limit, cpu.met) == (2.0, 1.6, None)


def test_a_crowd_is_judged_by_its_thousand_members_and_drawn_beyond(monkeypatch: pytest.MonkeyPatch):
    percent = {1000: iter([4.0, 9.0, 4.5]), 2000: iter([8.0]), 4000: iter([15.0])}

    def measure(members: int, seconds: float) -> dict[str, object]:
        return {
            "cpu_percent": next(percent[members]),
            "join_s": 1.0,
            "rejoin_s": 2.0,
            "lost": members == 4000,
        }

    monkeypatch.setattr(crowds, "measure", measure)
    result = crowds.measure_crowds(Settings(repeats=5))
    assert (result.figures[0].value, result.figures[0].met) == (4.5, True)
    assert result.figures[3].value == 1 and result.figures[3].met is False
    (curve,) = result.curves
    assert [(p.x, p.value, p.ideal) for p in curve.points] == [
        (1000, 4.5, 5),
        (2000, 8.0, 10),
        (4000, 15.0, 20),
    ]
