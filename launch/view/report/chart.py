"""Charts as SVG, drawn in the colours of the page that holds them. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

from edldist.observe.printable import printable

__all__ = ["Chart", "Line", "Mark", "draw_chart", "figure_in_words", "ticks"]

WIDTH, HEIGHT = 560, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 22, 10, 34
MOST_POINTS = 1_000
"""Of a line: more do not show on its width."""


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: for the legend.
        x, y: where it goes; it breaks where y is not finite.
        colour: number of its colour on the page.
        faint: whether it stands behind another one, and has no entry in the legend.
        stepped: whether it keeps each value until the next.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0
    faint: bool = False
    stepped: bool = False


@dataclass(frozen=True)
class Mark:
    """Something that happened at a place of the axis; ``tone`` is good, quiet, wait or bad."""

    x: float
    words: str
    tone: str = "quiet"


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title, unit: what is shown, and in what it is counted.
        x_name: what the axis below counts.
        zero: whether the axis begins there, as that of a quantity.
        whole: whether it counts things, which have no fractions.
        share: whether it is shown in per cent.
        mean: whether the legend says a line's mean, and not its last value.
    """

    title: str
    unit: str
    x_name: str
    lines: Sequence[Line]
    marks: Sequence[Mark] = field(default=())
    zero: bool = False
    whole: bool = False
    share: bool = False
    mean: bool = False


def ticks(low: float, high: float, most: int = 6, whole: bool = False) -> list[float]:
    """Round numbers from ``low`` to ``high``: at most ``most`` of them, two at least where there is room."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    raw = span / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * (1 - 1e-9))
    if whole:
        step = max(1.0, math.ceil(step))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def figure_in_words(value: float, share: bool = False) -> str:
    """A figure beside an axis or in a legend, in few characters."""
    if not math.isfinite(value):
        return "-"
    if share:
        return f"{value:.0%}"
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        return f"{value:.2g}"
    return f"{value:,.0f}" if size >= 1_000 or value == int(value) else f"{value:.3g}"


def draw_chart(chart: Chart) -> str:
    """The chart as an ``svg`` element, its legend above it; words of others are text, whatever they hold."""
    lines = [line for line in chart.lines if any(map(math.isfinite, line.y))]
    title = _text(chart.title)
    unit = f'<span class="unit">{_text(chart.unit)}</span>' if chart.unit else ""
    head = f"<figcaption><b>{title}</b>{unit}{''.join(_legend(chart, lines))}</figcaption>"
    if not lines:
        return f'<figure class="chart">{head}<p class="quiet">nothing was recorded</p></figure>'
    drawn = "".join(_parts(chart, lines))
    about = escape(f"{chart.title} over {chart.x_name}", quote=True)
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f'<figure class="chart">{head}<svg {box} role="img" aria-label="{about}">{drawn}</svg></figure>'


def _legend(chart: Chart, lines: Sequence[Line]) -> Iterator[str]:
    named = [line for line in lines if not line.faint]
    for line in named:
        known = [value for value in line.y if math.isfinite(value)]
        value = sum(known) / len(known) if chart.mean else known[-1]
        words = f"{line.name} " if len(named) > 1 or line.name != chart.title else ""
        words += "mean " if chart.mean else ""
        yield (
            f'<span class="key k{line.colour % 8}">{_text(words)}'
            f"<i>{figure_in_words(value, chart.share)}</i></span>"
        )


def _parts(chart: Chart, lines: Sequence[Line]) -> Iterator[str]:
    xs = [x for line in lines for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
    ys = [y for line in lines for y in line.y if math.isfinite(y)]
    left, right = min(xs), max(xs)
    low, high = min(ys), max(ys)
    if chart.zero:
        low = min(0.0, low)
    if high <= low:
        low, high = (low, low + 1.0) if chart.zero else (low - 0.5, low + 0.5)
    pad = 0.06 * (high - low)
    high += pad
    low -= 0.0 if chart.zero and low >= 0 else pad
    if chart.share:
        low, high = 0.0, min(high, 1.02)
    right = right if right > left else left + 1.0

    def across(x: float) -> float:
        return round(_LEFT + (x - left) / (right - left) * (WIDTH - _LEFT - _RIGHT), 1)

    def down(y: float) -> float:
        return round(HEIGHT - _BOTTOM - (y - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM), 1)

    for y in ticks(low, high, whole=chart.whole):
        yield f'<path class="grid" d="M{_LEFT} {down(y)}H{WIDTH - _RIGHT}"/>'
        yield f'<text class="tick y" x="{_LEFT - 6}" y="{down(y)}">{figure_in_words(y, chart.share)}</text>'
    for x in ticks(left, right, 7):
        yield f'<text class="tick x" x="{across(x)}" y="{HEIGHT - _BOTTOM + 16}">{figure_in_words(x)}</text>'
    yield f'<text class="tick x" x="{(WIDTH + _LEFT) / 2}" y="{HEIGHT - 4}">{_text(chart.x_name)}</text>'
    for mark in chart.marks:
        if left <= mark.x <= right:
            place = f"M{across(mark.x)} {_TOP}V{HEIGHT - _BOTTOM}"
            yield f'<path class="mark {mark.tone}" d="{place}"><title>{_text(mark.words)}</title></path>'
    for line in lines:
        path = _path(line, across, down)
        yield f'<path class="line c{line.colour % 8}{" faint" if line.faint else ""}" d="{path}"/>'
        if sum(map(math.isfinite, line.y)) <= 30 and not line.faint and not line.stepped:
            for x, y in zip(line.x, line.y, strict=True):
                if math.isfinite(y):
                    yield f'<circle class="dot c{line.colour % 8}" cx="{across(x)}" cy="{down(y)}" r="2.2"/>'


def _path(line: Line, across: Callable[[float], float], down: Callable[[float], float]) -> str:
    parts: list[str] = []
    pen = "M"
    before = math.nan
    for x, y in _thinned(line.x, line.y):
        if not math.isfinite(y):
            pen = "M"
            continue
        if line.stepped and pen == "L":
            parts.append(f"L{across(x)} {before}")
        before = down(y)
        parts.append(f"{pen}{across(x)} {before}")
        pen = "L"
    return "".join(parts)


def _thinned(xs: Sequence[float], ys: Sequence[float]) -> Iterator[tuple[float, float]]:
    """The points, or of each part of a long line the lowest and the highest, in their order."""
    points = list(zip(xs, ys, strict=True))
    if len(points) <= MOST_POINTS:
        yield from points
        return
    size = math.ceil(len(points) / (MOST_POINTS // 2))
    for start in range(0, len(points), size):
        part = points[start : start + size]
        finite = [point for point in part if math.isfinite(point[1])]
        if len(finite) < len(part):
            yield part[0][0], math.nan
        ends = {min(finite, key=lambda p: p[1]), max(finite, key=lambda p: p[1])} if finite else set()
        yield from sorted(ends)


def _text(words: object) -> str:
    return escape(printable(str(words)))
