"""The plot of a run, drawn from its events: learning over steps, capacity and waiting over time."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edldist.files import replace_file
from edldist.observe.panels import panels
from edldist.wording import duration
from edldist_launch.record.eventfile import read_events
from edldist_launch.view.console import shown
from edldist_launch.view.series import Series, collect, smoothed

__all__ = ["draw_curves"]

MOST_NAMED = 10
"""Marks that are written beside their line; more would cover the curve."""
NEAR = 0.02
"""Marks that are closer than this share of the axis are written as one."""
COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2")
GOOD, BAD, SAVED = "#059669", "#dc2626", "#64748b"


def draw_curves(events_path: Path, picture: Path, title: str) -> bool:
    """Draw ``picture`` (PNG); False when matplotlib is not installed or there is nothing to draw.

    Raises:
        OSError: it cannot be written; a former picture stands.
    """
    series = collect(read_events(events_path))
    if not series.metrics and len(series.times_s) < 2:
        return False
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = panels(series.metrics)
    unit_s, unit = _unit(series.times_s)
    over_time = [
        ("throughput", "samples/s", series.samples_per_s),
        ("teacher workers", "number", series.workers),
        ("labelled batches that wait", "batches", series.buffered),
        ("time that the hungriest student waits", "per cent", [100 * share for share in series.starved]),
    ]
    if len(series.times_s) < 2:
        over_time.clear()
    count = max(1, len(kinds)) + len(over_time)
    drawn = io.BytesIO()
    style: Any = {
        **{"font.size": 11, "axes.titlesize": 12, "axes.titlelocation": "left", "axes.titleweight": "bold"},
        **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3},
        **{"legend.frameon": False, "legend.fontsize": 10},
    }
    with pyplot.rc_context(style):
        figure, grid = pyplot.subplots(
            math.ceil(count / 2),
            2,
            figsize=(13, 3.4 * math.ceil(count / 2)),
            layout="tight",
            squeeze=False,
        )
        axes = [axis for row in grid for axis in row]
        try:
            figure.suptitle(title, parse_math=False, fontsize=15, fontweight="bold", x=0.01, ha="left")
            for number, (axis, kind) in enumerate(zip(axes, kinds, strict=False)):
                _learning(axis, kinds[kind], kind)
                _mark_steps(axis, series, named=number == 0)
            if not kinds:
                axes[0].text(0, 0.5, "no figure was reported: edldist.report(step=.., loss=..)")
                axes[0].set_axis_off()
            for number, (axis, told) in enumerate(zip(axes[max(1, len(kinds)) :], over_time, strict=False)):
                _over_time(axis, series, told, unit_s, unit, named=number == 0)
            for axis in axes[count:]:
                axis.set_axis_off()
            figure.savefig(drawn, format="png", dpi=110)
        finally:
            pyplot.close(figure)
    replace_file(picture, drawn.getvalue())
    return True


def _unit(times_s: Sequence[float]) -> tuple[float, str]:
    """In what a time of this length is counted: seconds of it, and its name."""
    last = times_s[-1] if times_s else 0.0
    return (1.0, "s") if last < 300 else (60.0, "min") if last < 3 * 3600 else (3600.0, "h")


def _over_time(
    axis: Any, series: Series, told: tuple[str, str, Sequence[float]], unit_s: float, unit: str, named: bool
) -> None:
    title, of, values = told
    axis.set_title(title)
    drawstyle = "steps-post" if values is series.workers else "default"
    places = [at / unit_s for at in series.times_s]
    smooth = None if values is series.workers else smoothed(values)
    axis.plot(places, values, color=COLOURS[0], drawstyle=drawstyle, alpha=0.25 if smooth else 1)
    if smooth:
        axis.plot(places, smooth, color=COLOURS[0], linewidth=2)
    axis.set(xlabel=f"time [{unit}]", ylabel=of)
    known = [value for value in values if math.isfinite(value)]
    axis.set_ylim(bottom=0, top=None if any(value > 0 for value in known) else 1)
    if values is series.workers:
        axis.yaxis.get_major_locator().set_params(integer=True)
    pauses = [(at / unit_s, f"paused {duration(pause_s)}", "grey") for at, pause_s in series.pauses]
    _mark(axis, pauses, dotted=True, named=True)
    changes = [(at / unit_s, what, GOOD if what.endswith("joined") else BAD) for at, what in series.changes]
    _mark(axis, changes, named=named)


def _mark_steps(axis: Any, series: Series, named: bool) -> None:
    """Where in the course of learning something befell the students."""
    marks = []
    for told in series.happened:
        if told.event in ("student_lost", "rolled_back", "loss_spiked", "checkpoint_restored"):
            step = series.step_at(told.at_s)
            if step is not None:
                words = {"student_lost": "rank lost", "checkpoint_restored": "restored"}.get(told.event)
                colour = SAVED if told.event == "checkpoint_restored" else BAD
                marks.append((step, words or told.event.replace("_", " "), colour))
    _mark(axis, marks, named=named)


def _mark(axis: Any, marks: Sequence[tuple[float, str, str]], *, named: bool, dotted: bool = False) -> None:
    """A line for each, with its words where there is room; those that are close share them."""
    left, right = axis.get_xlim()
    together: list[tuple[float, list[str], set[str]]] = []
    for at, words, colour in sorted(marks):
        axis.axvline(at, color=colour, linestyle=":" if dotted else "--", linewidth=1, alpha=0.7)
        if together and at - together[-1][0] < NEAR * (right - left):
            together[-1][1].append(words)
            together[-1][2].add(colour)
        else:
            together.append((at, [words], {colour}))
    axis.set_xlim(left, right)
    for at, said, colours in together if named and len(together) <= MOST_NAMED else ():
        more = f" and {len(said) - 1} more" if len(said) > 1 else ""
        axis.text(
            at,
            0.04,
            f" {shown(said[0])}{more} ",
            transform=axis.get_xaxis_transform(),  # the height is a share of the axis, the place is a place
            rotation=90,
            ha="left" if at < left + 0.05 * (right - left) else "right",
            va="bottom",
            fontsize=9,
            color=BAD if BAD in colours else min(colours),
            clip_on=True,
            parse_math=False,  # a name is text, whatever it holds
        )


def _learning(axis: Any, curves: Mapping[str, Mapping[int, float]], kind: str) -> None:
    """The metrics of one kind; one that was reported once is a level to compare the others with.

    Noise is shown behind a line of the means around each point.
    """
    for number, (name, points) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        steps = sorted(points)
        values = [points[step] for step in steps]
        if len(steps) == 1:
            axis.plot(steps, values, "o--", label=name, markersize=3, color=colour)
            axis.axhline(values[0], color=colour, linestyle="--")
            continue
        smooth = smoothed(values)
        if smooth is not None:
            axis.plot(steps, values, color=colour, alpha=0.25, linewidth=1)
            axis.plot(steps, smooth, color=colour, label=f"{name} (smoothed)", linewidth=2)
            continue
        marker = "o" if len(steps) <= 30 else None
        axis.plot(steps, values, label=name, marker=marker, markersize=3, color=colour)
    axis.set_title(shown(kind), parse_math=False)
    axis.set_xlabel("step")
    axis.margins(x=0.01)
    for text in axis.legend().get_texts():
        text.set_parse_math(False)
