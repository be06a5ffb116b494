"""The plot of a run, drawn from its events: learning over steps, capacity over time."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edldist.files import replace_file
from edldist.observe.panels import panels
from edldist.wording import duration
from edldist_launch.record.eventfile import read_events
from edldist_launch.view.console import shown

__all__ = ["Series", "collect", "draw_curves"]

ENDS = ("job_started", "job_completed", "job_failed", "job_interrupted")
"""What lies between two runs of a folder; one that was killed leaves only the next one's start."""

CHANGES = {
    "teacher_joined": "joined",
    "teacher_left": "left",
    "teacher_crashed": "crashed",
    "teacher_lost": "lost",
}
MOST_NAMED = 12
"""Changes that are written beside their line; more would cover the curve."""


@dataclass
class Series:
    """What is plotted.

    ``metrics``: for each reported name, its value by step (a step trained again after a restart
    counts with its last value). ``times_s``, ``samples_per_s``, ``workers``: one entry for each
    progress line, in seconds of running since the first. ``pauses``: at which of these seconds the job stood
    still, and for how long; the figures there are NaN, so that no line crosses a pause. ``changes``: at which
    of these seconds a teacher worker came or went while the job trained, and what it did.
    """

    metrics: dict[str, dict[int, float]] = field(default_factory=dict)
    times_s: list[float] = field(default_factory=list)
    samples_per_s: list[float] = field(default_factory=list)
    workers: list[float] = field(default_factory=list)
    pauses: list[tuple[float, float]] = field(default_factory=list)
    changes: list[tuple[float, str]] = field(default_factory=list)


def collect(events: Iterable[Mapping[str, Any]]) -> Series:
    """Sort events into series; reports of other ranks than 0 are left out."""
    series = Series()
    start: float | None = None
    step = 0
    last_t = 0.0
    ended = False
    changes: list[tuple[float, str]] = []  # since the last progress line
    crashed: set[object] = set()
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
            if ended and series.times_s:
                _pause(series, event["t"] - last_t)
                start += event["t"] - last_t
            elif series.times_s:
                series.changes += [(t - start, what) for t, what in changes]
            changes.clear()
            ended, last_t = False, event["t"]
            series.times_s.append(event["t"] - start)
            series.samples_per_s.append(float(event.get("samples_per_s", 0)))
            series.workers.append(float(event.get("workers", 0)))
        elif event["event"] in ENDS:
            ended = True
        elif event["event"] == "teacher_lost" and event.get("id") in crashed:
            pass  # the launcher knew it at once, and said more
        elif event["event"] in CHANGES:
            if event["event"] == "teacher_crashed":
                crashed.add(event.get("id"))
            changes.append((event["t"], f"{event.get('id')} {CHANGES[event['event']]}"))
    return series


def _pause(series: Series, pause_s: float) -> None:
    """The run that follows began this long after the one before was last seen at work."""
    at_s = series.times_s[-1]
    series.pauses.append((at_s, pause_s))
    series.times_s.append(at_s)
    series.samples_per_s.append(math.nan)
    series.workers.append(math.nan)


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
    if not series.metrics and len(series.times_s) < 2:
        return False
    kinds = panels(series.metrics)
    rows = max(1, math.ceil(len(kinds) / 2)) + 1
    drawn = io.BytesIO()
    figure, axes = pyplot.subplots(rows, 2, figsize=(11, 3.5 * rows), layout="constrained", squeeze=False)
    try:
        figure.suptitle(title, parse_math=False)
        places = [axis for row in axes[:-1] for axis in row]
        for axis, kind in zip(places, kinds, strict=False):
            _lines(axis, kinds[kind], kind)
        for axis in places[len(kinds) :]:
            axis.set_axis_off()
        if not kinds:
            places[0].text(0, 0.5, "no figure was reported: edldist.report(step=.., loss=..)")
        for axis, values, name in (
            (axes[-1][0], series.samples_per_s, "throughput [samples/s]"),
            (axes[-1][1], series.workers, "teacher workers"),
        ):
            style = {"drawstyle": "steps-post"} if values is series.workers else {}
            axis.plot(series.times_s, values, color="tab:blue", **style)
            axis.set(xlabel="time [s]", ylabel=name)
            axis.set_ylim(bottom=0, top=None if any(value > 0 for value in values) else 1)
            axis.grid(alpha=0.3)
            _mark_pauses(axis, series.pauses)
            _mark_changes(axis, series.changes)
        axes[-1][1].yaxis.get_major_locator().set_params(integer=True)
        figure.savefig(drawn, format="png", dpi=120)
    finally:
        pyplot.close(figure)
    replace_file(picture, drawn.getvalue())
    return True


def _mark_pauses(axis: Any, pauses: Sequence[tuple[float, float]]) -> None:
    """A line where the job stood still, with how long; the axis counts only the time in which it ran."""
    for at_s, pause_s in pauses:
        axis.axvline(at_s, color="grey", linestyle=":", linewidth=1.5)
        axis.text(
            at_s,
            0.97,
            f"paused {duration(pause_s)}",
            transform=axis.get_xaxis_transform(),
            rotation=90,
            ha="right",
            va="top",
            fontsize=8,
            color="grey",
        )


def _mark_changes(axis: Any, changes: Sequence[tuple[float, str]]) -> None:
    """A line for each worker that came or went, with its name where there is room."""
    for time_s, what in changes:
        colour = "tab:green" if what.endswith("joined") else "tab:red"
        axis.axvline(time_s, color=colour, linestyle="--", linewidth=1, alpha=0.7)
        if len(changes) <= MOST_NAMED:
            axis.text(
                time_s,
                0.03,
                shown(what),
                transform=axis.get_xaxis_transform(),  # the height is a share of the axis, the time is a time
                rotation=90,
                ha="right",
                va="bottom",
                fontsize=8,
                parse_math=False,  # a name is text, whatever it holds
            )


def _lines(axis: Any, curves: Mapping[str, Mapping[int, float]], label: str) -> None:
    """The metrics of one kind; one that was reported once is a level to compare the others with."""
    for name, points in curves.items():
        steps = sorted(points)
        if len(steps) == 1:
            (drawn,) = axis.plot(steps, list(points.values()), "o--", label=name, markersize=3)
            axis.axhline(points[steps[0]], color=drawn.get_color(), linestyle="--")
            continue
        marker = "o" if len(steps) <= 30 else None
        axis.plot(steps, [points[step] for step in steps], label=name, marker=marker, markersize=3)
    axis.set_xlabel("step")
    axis.set_ylabel(shown(label), parse_math=False)
    axis.grid(alpha=0.3)
    for text in axis.legend().get_texts():
        text.set_parse_math(False)
