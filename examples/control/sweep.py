"""Compare the hypernetwork with networks that get the parameters concatenated, job by job."""

from __future__ import annotations

import sys
from pathlib import Path

# Python puts this script's folder on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.common.figures import Figure, table
from examples.common.sweep import Sweep, conclude, options
from examples.control.models import NETWORKS

HERE = Path(__file__).resolve().parent
GATE = (
    "in unseen tasks cost / least cost <= 1.01, and the excess over the least cost at most 1/3 of that of a "
    "network of the same width with concatenated parameters"
)
TITLES = {
    "hyper": "hypernetwork",
    "concatenated": "concatenated, same width",
    "larger": "concatenated, as many parameters",
}


def main() -> int:
    args = options(__doc__, HERE).parse_args()
    sweep = Sweep(HERE, args.output)
    figures, rows = {}, []
    for network, title in TITLES.items():
        found = {
            seed: sweep.job(f"{network}-{seed}", student=["--network", network, "--seed", seed])
            for seed in args.seeds
        }
        parameters = sum(each.numel() for each in NETWORKS[network]().parameters())
        row: list[object] = [title, f"{parameters:,}"]
        for metric in ("unseen", "unseen_worst", "seen"):
            figure = Figure.of(metric, {seed: each[metric] for seed, each in found.items()})
            figures[f"{title}: {metric.replace('_', ', ')}"] = figure
            row.append(f"{figure:.4f}")
        rows.append(row)
    print(table(["", "parameters", "unseen tasks", "the worst of them", "tasks with teachers"], rows))
    ratio, other = (figures[f"{TITLES[name]}: unseen"].mean for name in ("hyper", "concatenated"))
    share = (ratio - 1) / (other - 1)
    held = {
        f"a cost of {ratio:.4f} <= 1.01 times the least": ratio <= 1.01,
        f"{share:.2f} <= 1/3 of the excess of concatenated parameters": share <= 1 / 3,
    }
    return conclude(HERE.name, GATE, figures, held)


if __name__ == "__main__":
    sys.exit(main())
