"""The plot of a run, drawn from its events: learning over steps, capacity over time."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edldist.files import replace_file
from edldist_launch.eventfile import read_events

__all__ = ["Series", "collect", "draw_curves"]


@dataclass
class Series:
    """What is plotted.

    ``metrics``: for each reported name, its value by step (a step trained again after a restart
    counts with its last value). ``times_s``, ``samples_per_s``, ``workers``: one entry for each
    progress line, in seconds since the first.
    """

    metrics: dict[str, dict[int, float]] = field(default_factory=dict)
    times_s: list[float] = field(default_factory=list)
    samples_per_s: list[float] = field(default_factory=list)
    workers: list[float] = field(default_factory=list)


def collect(events: Iterable[Mapping[str, Any]]) -> Series:
    """Sort events into series; reports of other ranks than 0 are left out."""
    series = Series()
    start: float | None = None
    step = 0
    for event in events:
        if event["event"] == "report" and event.get("rank") == 0:
            if isinstance(event.get("step"), int | float):
                step = int(event["step"])
            for key, value in event.items():
                if key in ("t", "event", "rank", "step", "steps", "epoch", "epochs"):
                    continue
                if isinstance(value, int | float) and not isinstance(value, bool):
                    series.metrics.setdefault(key, {})[step] = float(value)
        elif event["event"] == "progress":
            start = event["t"] if start is None else start
            series.times_s.append(event["t"] - start)
            series.samples_per_s.append(float(event.get("samples_per_s", 0)))
            series.workers.append(float(event.get("workers", 0)))
    return series


def draw_curves(events_path: Path, picture: Path, title: str) -> bool:
    """Draw ``picture`` (PNG); False when matplotlib is not installed or there is nothing to draw.

    Raises:
        OSError: it cannot be written; a former picture stands.
    """
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    series = collect(read_events(events_path))
    curves = {name: points for name, points in series.metrics.items() if len(points) > 1}
    if not curves and len(series.times_s) < 2:
        return False
    losses = {name: points for name, points in curves.items() if "loss" in name}
    accuracies = {name: points for name, points in curves.items() if "acc" in name}
    drawn = io.BytesIO()
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7), layout="constrained")
    try:
        figure.suptitle(title)
        _lines(axes[0][0], losses, "loss")
        _lines(axes[0][1], accuracies, "accuracy")
        for axis, values, name in (
            (axes[1][0], series.samples_per_s, "throughput [samples/s]"),
            (axes[1][1], series.workers, "teacher workers"),
        ):
            style = {"drawstyle": "steps-post"} if values is series.workers else {}
            axis.plot(series.times_s, values, color="tab:blue", **style)
            axis.set(xlabel="time [s]", ylabel=name)
            axis.set_ylim(bottom=0, top=None if any(values) else 1)
            axis.grid(alpha=0.3)
        axes[1][1].yaxis.get_major_locator().set_params(integer=True)
        figure.savefig(drawn, format="png", dpi=120)
    finally:
        pyplot.close(figure)
    replace_file(picture, drawn.getvalue())
    return True


def _lines(axis: Any, curves: Mapping[str, Mapping[int, float]], label: str) -> None:
    for name, points in curves.items():
        steps = sorted(points)
        marker = "o" if len(steps) <= 30 else None
        axis.plot(steps, [points[step] for step in steps], label=name, marker=marker, markersize=3)
    axis.set(xlabel="step", ylabel=label)
    axis.grid(alpha=0.3)
    if curves:
        axis.legend()
    else:
        axis.text(0.5, 0.5, f"no {label} was reported", ha="center", va="center", transform=axis.transAxes)
