"""Pictures of the curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edldist_benchmarks.figures import Curve

__all__ = ["INSTALL_HINT", "draw_curves"]

INSTALL_HINT = (
    "no pictures of the curves: install matplotlib (pip install 'edldist[plot]', in a clone '.[plot]')"
)


def draw_curves(curves: Sequence[Curve], folder: Path) -> list[Path] | None:
    """One PNG for each curve; None when matplotlib is not installed."""
    if not curves:
        return []
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pictures = []
    for curve in curves:
        figure, axis = pyplot.subplots(figsize=(6, 4.2), layout="constrained")
        try:
            xs = [point.x for point in curve.points]
            axis.plot(xs, [p.ideal for p in curve.points], "--", color="tab:gray", label=curve.ideal_name)
            axis.plot(xs, [p.value for p in curve.points], "o-", color="tab:blue", label="measured")
            # Linear axes: the ideal is a straight line then, and what falls short is seen in proportion.
            axis.set_xlim(left=0)
            axis.set_ylim(bottom=0)
            axis.set(title=curve.title, xlabel=curve.x_label, ylabel=curve.y_label)
            axis.grid(alpha=0.3)
            axis.legend()
            pictures.append(folder / f"{curve.name}.png")
            figure.savefig(pictures[-1], dpi=120)
        finally:
            pyplot.close(figure)
    return pictures
