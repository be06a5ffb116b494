"""The picture of a plan: what the student's efficiency costs, and how long passes take."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from edldist.files import replace_file
from edldist_launch.planner.pace import COMPUTE
from edldist_launch.planner.planning import Plan

__all__ = ["draw_plan"]

SEEN, FRONTIER, BEST = "tab:grey", "tab:blue", "tab:red"
PLACES = 60


def draw_plan(plan: Plan, picture: Path, title: str) -> bool:
    """Draw ``picture`` (PNG); False when matplotlib is not installed.

    Raises:
        OSError: it cannot be written; a former picture stands.
    """
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (cost, passes) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    drawn = io.BytesIO()
    try:
        figure.suptitle(title, parse_math=False)
        _frontier(cost, plan)
        _passes(passes, plan)
        figure.savefig(drawn, format="png", dpi=120)
    finally:
        pyplot.close(figure)
    replace_file(picture, drawn.getvalue())
    return True


def _frontier(axis: Any, plan: Plan) -> None:
    seen, front = plan.seen, plan.frontier
    axis.scatter(
        [option.worker_s for option in seen],
        [option.replayed.efficiency for option in seen],
        s=16,
        color=SEEN,
        alpha=0.5,
        linewidths=0,
        label="replayed",
    )
    axis.plot(
        [option.worker_s for option in front],
        [option.replayed.efficiency for option in front],
        "o-",
        color=FRONTIER,
        markersize=4,
        label="the frontier",
    )
    for option in front:
        axis.annotate(
            str(option.setting.workers),
            (option.worker_s, option.replayed.efficiency),
            textcoords="offset points",
            xytext=(4, -10),
            fontsize=8,
        )
    best = plan.best
    axis.scatter(
        [best.worker_s],
        [best.replayed.efficiency],
        s=130,
        facecolors="none",
        edgecolors=BEST,
        linewidths=1.8,
        label="the plan" if plan.met else "the nearest to the target",
    )
    if plan.target.kind == "efficiency":
        axis.axhline(plan.target.value, color=BEST, linewidth=0.8, linestyle="--", label="the target")
    elif plan.target.kind == "budget":
        axis.axvline(plan.target.value, color=BEST, linewidth=0.8, linestyle="--", label="the target")
    axis.set(xlabel="worker seconds (numbers: workers)", ylabel="efficiency of the student", xlim=(0, None))
    axis.set_ylim(0, 1.05)
    axis.grid(alpha=0.25)
    axis.legend(loc="lower right", frameon=False, fontsize=9)


def _passes(axis: Any, plan: Plan) -> None:
    """A pass by its size: what was seen, and the fit."""
    rows = [row for run in plan.runs for row in run.rows]
    for number, (device, pace) in enumerate(plan.paces.items()):
        colour = f"C{number}"
        those = [row for row in rows if row.device == device]
        axis.scatter(
            [row.size for row in those],
            [1e3 * sum(row.stages.get(stage, 0.0) for stage in COMPUTE) for row in those],
            s=10,
            color=colour,
            alpha=0.3,
            linewidths=0,
        )
        most = pace.sizes[1]
        sizes = sorted({max(1, round(most * place / PLACES)) for place in range(PLACES + 1)})
        times = [1e3 * pace.takes(size, *COMPUTE) for size in sizes]
        axis.plot(sizes, times, color=colour, label=f"{device} (dots: rows)")
    axis.set(xlabel="rows of a pass", ylabel="milliseconds of compute", xlim=(0, None), ylim=(0, None))
    axis.grid(alpha=0.25)
    for text in axis.legend(frameon=False, fontsize=9).get_texts():
        text.set_parse_math(False)
