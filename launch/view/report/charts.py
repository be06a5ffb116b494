"""Which charts a report has: of one run, or of several over each other. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from html import escape

from edldist.observe.event_words import KINDS
from edldist.observe.panels import panels
from edldist.observe.printable import printable
from edldist.wording import duration
from edldist_launch.view.report.chart import Chart, Line, Mark, ticks
from edldist_launch.view.series import Happened, Series, smoothed

__all__ = ["charts_of", "draw_timeline", "overlaid", "tone_of"]

_OF_LAUNCHERS = {
    **{"crashed": "bad", "hopeless": "bad", "failed": "bad"},
    **{"interrupted": "wait", "completed": "good"},
}
_LANES = {
    "workers": ("teacher_",),
    "students": ("student_", "labels_", "task_", "rolled_", "loss_"),
    "checkpoints": ("checkpoint_",),
    "coordinator": ("coordinator_", "keys_", "clock_", "node_"),
    "scaling": ("scaled", "remark"),
    "job": ("job_",),
}
_WIDTH, _ROW, _LEFT, _RIGHT = 1140, 24, 92, 12
MOST_DRAWN = 4_000


def tone_of(event: str) -> str:
    """How to take an event."""
    return KINDS.get(event) or _OF_LAUNCHERS.get(event.rpartition("_")[2], "quiet")


def _unit(times_s: Sequence[float]) -> tuple[float, str]:
    last = times_s[-1] if times_s else 0.0
    return (1.0, "s") if last < 300 else (60.0, "min") if last < 3 * 3600 else (3600.0, "h")


def charts_of(series: Series) -> list[Chart]:
    """Those of one run: what was learnt by step, what was done by time."""
    unit_s, unit = _unit(series.times_s)
    marks = [
        Mark(told.at_s / unit_s, told.words, tone_of(told.event))
        for told in series.happened
        if told.event.startswith("teacher_") and told.event != "teacher_left" or told.event == "student_lost"
    ]
    marks += [Mark(at / unit_s, f"paused {duration(paused)}") for at, paused in series.pauses]
    found = [
        _over_time(series, title, of, values, unit_s, unit, marks)
        for title, of, values in _timed(series)
        if any(map(math.isfinite, values))
    ]
    by_step = [
        Mark(step, told.words, tone_of(told.event))
        for told in series.happened
        if told.event in ("student_lost", "loss_spiked", "rolled_back", "checkpoint_restored")
        and (step := series.step_at(told.at_s)) is not None
    ]
    courses = {name: points for name, points in series.metrics.items() if len(points) > 1}
    for kind, curves in panels(courses).items():
        lines: list[Line] = []
        for number, (name, points) in enumerate(curves.items()):
            lines += _curve(name, points, number)
        found.append(Chart(kind, "", "step", lines, by_step))
    return found


def _timed(series: Series) -> list[tuple[str, str, list[float]]]:
    return [
        ("throughput", "samples/s", series.samples_per_s),
        ("teacher workers", "", series.workers),
        ("labelled batches that wait", "", series.buffered),
        ("waiting for labels", "share of the time of the student that waits most", series.starved),
    ]


def _over_time(
    series: Series,
    title: str,
    of: str,
    values: Sequence[float],
    unit_s: float,
    unit: str,
    marks: Sequence[Mark],
) -> Chart:
    workers = values is series.workers
    places = [at / unit_s for at in series.times_s]
    smooth = None if workers else smoothed(values)
    lines = [Line(title, places, values, 0, faint=smooth is not None, stepped=workers)]
    if smooth is not None:
        lines.append(Line(title, places, smooth, 0))
    share = values is series.starved
    return Chart(title, of, f"time [{unit}]", lines, marks, True, workers, share, mean=not workers)


def _curve(name: str, points: Mapping[int, float], colour: int) -> list[Line]:
    steps = sorted(points)
    values = [points[step] for step in steps]
    smooth = smoothed(values)
    if smooth is None:
        return [Line(name, steps, values, colour)]
    return [Line(name, steps, values, colour, faint=True), Line(f"{name} (smoothed)", steps, smooth, colour)]


def overlaid(runs: Sequence[tuple[str, Series]]) -> list[Chart]:
    """Those of several runs, each with a line of its own; noise is left out."""
    unit_s, unit = _unit(max((series.times_s for _, series in runs), key=lambda t: t[-1] if t else 0.0))
    found = []
    for at, (title, of, _) in enumerate(_timed(Series())):
        lines = []
        for number, (name, series) in enumerate(runs):
            values = _timed(series)[at][2]
            stepped = values is series.workers
            shown = values if stepped else smoothed(values) or values
            lines.append(Line(name, [t / unit_s for t in series.times_s], shown, number, stepped=stepped))
        whole, share = title == "teacher workers", title == "waiting for labels"
        found.append(Chart(title, of, f"time [{unit}]", lines, (), True, whole, share, mean=not whole))
    several = [name for _, series in runs for name, points in series.metrics.items() if len(points) > 1]
    for metric in dict.fromkeys(several):
        lines = []
        for number, (name, series) in enumerate(runs):
            points = series.metrics.get(metric, {})
            steps = sorted(points)
            values = [points[step] for step in steps]
            lines.append(Line(name, steps, smoothed(values) or values, number))
        found.append(Chart(metric, "", "step", lines))
    return found


_MARKS = {
    "good": ("▲", "came, or saved", "M0 -5L5 4H-5Z"),
    "wait": ("▼", "held up", "M0 5L5 -4H-5Z"),
    "bad": ("✕", "lost, or failed", "M-4 -5L0 -1.5L4 -5L5 -4L1.5 0L5 4L4 5L0 1.5L-4 5L-5 4L-1.5 0L-5 -4Z"),
    "quiet": ("●", "left, began, or was changed", "M-4 0A4 4 0 1 0 4 0A4 4 0 1 0 -4 0Z"),
}
"""Of an event of each tone: its sign in words, what it says, and its shape: colour alone tells too little."""


def _legend(tones: Set[str]) -> str:
    keys = [
        f'<span><b class="{tone}">{sign}</b> {words}</span>'
        for tone, (sign, words, _) in _MARKS.items()
        if tone in tones
    ]
    return f'<p class="legend">{"".join(keys)}</p>'


def draw_timeline(happened: Sequence[Happened]) -> str:
    """All events as marks, a lane for each kind, with their words where a pointer rests; empty for none."""
    lanes: dict[str, list[Happened]] = {}
    for told in happened[:MOST_DRAWN]:
        lane = next((name for name, heads in _LANES.items() if told.event.startswith(heads)), None)
        if lane is not None:
            lanes.setdefault(lane, []).append(told)
    if not lanes:
        return ""
    order = [name for name in _LANES if name in lanes]
    times = [told.at_s for those in lanes.values() for told in those]
    first, last = min(times), max(times)
    unit_s, unit = _unit([last - first])
    span = (last - first) or 1.0
    height = _ROW * len(order) + 40

    def across(at_s: float) -> float:
        return round(_LEFT + (at_s - first) / span * (_WIDTH - _LEFT - _RIGHT), 1)

    parts = []
    tones = {tone_of(told.event) for those in lanes.values() for told in those}
    for number, name in enumerate(order):
        y = 8 + _ROW * number + _ROW / 2
        parts.append(f'<text class="lane" x="4" y="{y}">{name}</text>')
        parts.append(f'<path class="grid" d="M{_LEFT} {y}H{_WIDTH - _RIGHT}"/>')
        for told in lanes[name]:
            words = escape(printable(f"{duration(told.at_s - first)}: {told.words}"))
            tone = tone_of(told.event)
            place = f'transform="translate({across(told.at_s)} {y})" d="{_MARKS[tone][2]}"'
            parts.append(f'<path class="event {tone}" {place}><title>{words}</title></path>')
    bottom = height - 20
    for tick in ticks(0.0, span / unit_s, 9):
        parts.append(f'<text class="tick x" x="{across(first + tick * unit_s)}" y="{bottom}">{tick:g}</text>')
    parts.append(f'<text class="tick x" x="{(_WIDTH + _LEFT) / 2}" y="{height - 4}">time [{unit}]</text>')
    box = f'viewBox="0 0 {_WIDTH} {height}"'
    about = f"{len(times)} events over time"
    return (
        f'<div class="chart wide scroll">{_legend(tones)}<svg {box} style="min-width: 640px" role="img" '
        f'aria-label="{about}">{"".join(parts)}</svg></div>'
    )
