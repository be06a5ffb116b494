"""The plot of a run: every metric, and pauses as pauses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from edldist.observe.panels import panels
from edldist_launch.view.curves import draw_curves
from edldist_launch.view.series import collect, smoothed


def progress(t: float, samples_per_s: float = 10.0) -> dict[str, Any]:
    return {"t": t, "event": "progress", "samples_per_s": samples_per_s, "workers": 2}


def started(t: float) -> dict[str, Any]:
    return {"t": t, "event": "job_started"}


@pytest.mark.parametrize(
    "end", [[{"t": 12.0, "event": "job_interrupted"}], []], ids=["interrupted", "killed"]
)
def test_a_pause_between_two_runs_is_no_time_of_training(end: list[dict[str, Any]]) -> None:
    first, second = [started(0.0), progress(10.0), progress(11.0)], [started(3600.0), progress(3611.0)]
    series = collect([*first, *end, *second, progress(3612.0, 20.0)])
    assert series.pauses == [(1.0, 3600.0)]
    assert series.times_s == [0.0, 1.0, 1.0, 1.0, 2.0], "the hour is not on the axis"
    assert series.samples_per_s[:2] == [10.0, 10.0] and series.samples_per_s[3:] == [10.0, 20.0]
    assert math.isnan(series.samples_per_s[2]) and math.isnan(series.workers[2]), "no line crosses it"


def test_a_run_that_began_once_has_no_pause() -> None:
    series = collect([started(0.0), progress(10.0), progress(500.0), {"t": 501.0, "event": "job_completed"}])
    assert (series.pauses, series.times_s) == ([], [0.0, 490.0])


def test_every_metric_has_a_panel_whatever_its_name() -> None:
    names = (
        "ppl",
        "loss",
        "eval/ppl",
        "bleu",
        "plain_accuracy",
        "top5_acc",
        "kd_loss",
        "lr_0",
        "lr_1",
        "µ",
        "7",
    )
    found = panels(dict.fromkeys(names, 0))
    assert list(found) == ["loss", "accuracy", "ppl", "bleu", "lr", "µ", "7"]
    assert {name for kind in found.values() for name in kind} == set(names)
    assert list(found["ppl"]) == ["ppl", "eval/ppl"] and list(found["lr"]) == ["lr_0", "lr_1"]


def test_all_of_them_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    seen: list[tuple[str, list[str]]] = []
    save = Figure.savefig

    def look(figure: Figure, *args: Any, **settings: Any) -> None:
        for axis in figure.axes:
            legend = axis.get_legend()
            said = [text.get_text() for text in (legend.get_texts() if legend else axis.texts)]
            seen.append((axis.get_title(loc="left"), said))
        save(figure, *args, **settings)

    monkeypatch.setattr(Figure, "savefig", look)
    events = [
        started(0.0),
        *({"t": t, "event": "report", "rank": 0, "step": t, "ppl": 9.0 / t, "a$b": 1.0} for t in range(1, 4)),
        {"t": 4.0, "event": "report", "rank": 0, "teacher_accuracy": 0.99},
        *(progress(1.0), progress(2.0), started(90.0), progress(91.0)),
    ]
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(json.dumps(event) for event in events))
    assert draw_curves(path, tmp_path / "curves.png", "a $ in a name")
    paused = [" paused 1m29s "]
    assert seen == [
        ("accuracy", ["teacher_accuracy"]),
        ("ppl", ["ppl"]),
        ("b", ["a$b"]),
        ("throughput", paused),
        ("teacher workers", paused),
        ("labelled batches that wait", paused),
        ("time that the hungriest student waits", paused),
        ("", []),
    ]


def test_a_noisy_curve_is_smoothed_without_lagging_and_a_calm_one_is_left_alone() -> None:
    noisy = [i + (-1) ** i * 5.0 for i in range(200)]
    smooth = smoothed(noisy)
    assert smooth is not None and max(abs(mean - i) for i, mean in list(enumerate(smooth))[5:-5]) < 1.5
    assert smooth[0] == noisy[0] and smooth[-1] == noisy[-1]
    assert smoothed([float(i) for i in range(200)]) is None, "it would be the same line"
    assert smoothed(noisy[:50]) is None and smoothed([]) is None and smoothed([1.0] * 100) is None
    gap = smoothed([*noisy[:100], math.nan, *noisy[100:]])
    assert gap is not None and math.isnan(gap[100]) and all(map(math.isfinite, gap[:100] + gap[101:]))
