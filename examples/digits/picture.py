"""The demo's picture: accuracy, size and speed, and the fleet's throughput."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from examples.digits.comparison import Comparison

LOST = "#c0392b"
COLOURS = {"teacher": "#6b7a8f", "plain": "#e08e45", "distilled": "#2a9d6f"}


def draw(found: Comparison, path: Path) -> None:
    """Accuracy, size and speed, and the throughput of the fleet, in one picture (PNG)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = pyplot.figure(figsize=(12, 8), layout="constrained")
        try:
            rows = figure.subfigures(2, 1, height_ratios=[1.15, 1])
            left, right = rows[0].subplots(1, 2, width_ratios=[1.5, 1])
            _draw_accuracy(left, found)
            _draw_size_and_speed(right, found)
            _draw_throughput(rows[1].subplots(), found)
            figure.savefig(path, dpi=110)
        finally:
            pyplot.close(figure)


def _draw_accuracy(axes: Any, found: Comparison) -> None:
    names = {
        "teacher": f"teacher\n{found.labels['teacher']:,} true labels",
        "plain": f"plain student\n{found.labels['plain']} true labels",
        "distilled": "distilled student\nthe teacher's labels",
    }
    wrong = [found.wrong(name) for name in names]
    bars = axes.bar(list(names.values()), wrong, color=[COLOURS[name] for name in names], width=0.6)
    for bar, name, count in zip(bars, names, wrong, strict=True):
        place = (bar.get_x() + bar.get_width() / 2, count)
        text = f"{found.accuracy[name]:.1%} right"
        axes.annotate(
            text, place, (0, 4), textcoords="offset points", ha="center", weight="bold", fontsize=13
        )
    top = max(wrong)
    positive = sum(gain > 0 for gain in found.gains)
    axes.text(
        2,
        0.62 * top,
        f"{found.gain:+.1f} points\nin this run",
        ha="center",
        weight="bold",
        fontsize=17,
        color=COLOURS["distilled"],
    )
    axes.text(
        2,
        0.45 * top,
        f"{len(found.gains)} seeds: {found.spread}\nbetter in {positive} of {len(found.gains)}",
        ha="center",
        color=COLOURS["distilled"],
    )
    axes.set_ylim(0, 1.12 * top)
    axes.set_ylabel(f"wrong, of {found.test_images} test images")
    axes.set_title("The same small student, with and without the fleet", loc="left", weight="bold")


def _draw_size_and_speed(axes: Any, found: Comparison) -> None:
    rows: list[tuple[str, Mapping[str, float], str]] = [
        ("parameters", found.parameters, f"{found.smaller:.0f}x smaller"),
        ("images/s\non one thread", found.images_per_s, f"{found.faster:.0f}x faster"),
    ]
    for place, (_, values, words) in enumerate(rows):
        top = max(values.values())
        for offset, name in ((-0.2, "teacher"), (0.2, "distilled")):
            share = values[name] / top
            axes.barh(place + offset, share, height=0.34, color=COLOURS[name])
            inside = share > 0.6
            text = f"{'teacher' if name == 'teacher' else 'student'}  {values[name]:,.0f}"
            axes.text(
                share - 0.02 if inside else share + 0.02,
                place + offset,
                text if name == "teacher" else f"{text}   {words}",
                va="center",
                ha="right" if inside else "left",
                color="white" if inside else "black",
                weight="bold" if name != "teacher" else "normal",
            )
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_xticks([])
    axes.set_xlim(0, 1.0)
    axes.spines["bottom"].set_visible(False)
    axes.invert_yaxis()
    axes.set_title("Size and speed", loc="left", weight="bold")


def _draw_throughput(axes: Any, found: Comparison) -> None:
    curve = found.throughput
    end_s = max(curve.times_s, default=1.0)
    top = 1.5 * max(curve.samples_per_s, default=1.0)
    axes.plot(curve.times_s, curve.samples_per_s, color=COLOURS["teacher"], linewidth=2)
    axes.fill_between(curve.times_s, curve.samples_per_s, color=COLOURS["teacher"], alpha=0.15)
    words = {"killed": "killed (kill -9)", "restarted": "started again", "joined": "joins the running job"}
    began_s, workers = 0.0, curve.workers
    for number, change in enumerate([*curve.changes, None]):
        until_s = change.time_s if change else end_s
        if until_s - began_s > 0.05 * end_s:
            text = f"{workers} worker" + ("" if workers == 1 else "s")
            axes.text((began_s + until_s) / 2, 0.03 * top, text, ha="center", color=COLOURS["teacher"])
        if change is None:
            break
        began_s, workers = until_s, workers + change.gained
        colour = COLOURS["distilled"] if change.gained > 0 else LOST
        axes.axvline(until_s, color=colour, linestyle="--", linewidth=1.5)
        late = until_s > 0.75 * end_s
        axes.text(
            until_s,
            top * (0.97 - 0.1 * (number % 3)),
            f" {change.worker} {words.get(change.what, change.what)} ",
            color=colour,
            weight="bold",
            va="top",
            ha="right" if late else "left",
            parse_math=False,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.9},
        )
    axes.set_ylim(0, top)
    axes.set_xlim(0, end_s)
    axes.set_xlabel("seconds of training")
    axes.set_ylabel("samples/s, labelled and trained on")
    axes.set_title(
        f"Workers come and go: of {found.samples:,} samples {found.lost} lost, {found.repeated} repeated",
        loc="left",
        weight="bold",
    )
