"""Run the job with a graph of each item's own and with one global graph, and compare them on cold items."""

from __future__ import annotations

import sys
from pathlib import Path

# Python puts this script's folder on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.cold_items.models import GRAPHS
from examples.common.figures import Figure, differences, table
from examples.common.sweep import Sweep, conclude, options

HERE = Path(__file__).resolve().parent
GATE = "AUC on cold items at least 2 points above the same network with one global graph"
METRICS = {"cold_auc": "cold, adapted", "cold_auc_before": "cold, not adapted", "warm_auc": "mature"}


def main() -> int:
    args = options(__doc__, HERE).parse_args()
    sweep = Sweep(HERE, args.output)
    found: dict[tuple[str, str], dict[int, float]] = {}
    for graph in GRAPHS:
        for seed in args.seeds:
            metrics = sweep.job(f"{graph}-{seed}", student=["--graph", graph, "--seed", seed])
            for metric in METRICS:
                found.setdefault((graph, metric), {})[seed] = 100 * metrics[metric]
    figures, rows = {}, []
    for metric, title in METRICS.items():
        for graph in GRAPHS:
            figures[f"{graph} graph, {title}"] = Figure.of(metric, found[graph, metric])
        gains = differences(found["own", metric], found["global", metric])
        figures[f"gain, {title}"] = Figure.of(metric, gains)
        rows.append([title, *(f"{each:.2f}" for each in list(figures.values())[-3:])])
    print(table(["AUC, percent", "own graphs", "one global graph", "gain"], rows))
    gain = figures["gain, cold, adapted"].mean
    return conclude(HERE.name, GATE, figures, {f"a gain of {gain:.2f} >= 2 points": gain >= 2})


if __name__ == "__main__":
    sys.exit(main())
