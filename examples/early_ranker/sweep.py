"""Train early rankers by either gradient, measure how much these vary, and print both as Markdown.

``--plot`` draws the variance as the candidate set grows.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

# Python puts this script's folder on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.common.figures import Figure, differences, table
from examples.common.sweep import Sweep, conclude, options

HERE = Path(__file__).resolve().parent
GATE = "clicks in 100 visits >= vanilla gradient + 1.0; variance of the logit gradient <= 1/10 of vanilla's"
CANDIDATES = 50
SIZES = (2, 5, 10, 20, 50, 100, 200)
WAYS = {
    "set_raw": "whole set, no baseline",
    "set": "whole set, less the batch's mean",
    "set_own": "whole set, less each user's own mean",
    "inclusion": "inclusion",
}
TRAINED_STEPS = 100


def main() -> int:
    parser = options(__doc__, HERE)
    parser.add_argument("--plot", type=Path, metavar="PNG")
    args = parser.parse_args()
    sweep = Sweep(HERE, args.output)
    value = {
        credit: {
            seed: sweep.job(f"{credit}-{seed}", student=["--credit", credit, "--seed", seed])["value"]
            for seed in args.seeds
        }
        for credit in ("set", "inclusion")
    }
    untrained, start = noise(sweep, args.seeds, 0)
    _, trained = noise(sweep, args.seeds[:1], TRAINED_STEPS)  # to be seen, not to judge by: one seed
    ratio = {
        seed: start["inclusion", CANDIDATES][seed] / start["set", CANDIDATES][seed] for seed in args.seeds
    }
    figures = {
        "value": Figure.of("value", value["inclusion"]),
        "vanilla": Figure.of("vanilla", value["set"]),
        "gain": Figure.of("gain", differences(value["inclusion"], value["set"])),
        "variance ratio": Figure.of("variance ratio", ratio),
    }
    rows = [
        ("untrained", "", Figure.of("untrained", untrained)),
        ("vanilla: the whole set", 300, figures["vanilla"]),
        ("credit-assigned: inclusion", 300, figures["value"]),
    ]
    print(table(["gradient", "steps", "clicks in 100 visits"], [[a, b, f"{c:.2f}"] for a, b, c in rows]))
    panels = {"untrained": start, f"after {TRAINED_STEPS} steps, seed {args.seeds[0]}": trained}
    for title, found in panels.items():
        print(f"\nVariance of the gradient by one user's logits, {title}:\n")
        cells = [
            [name, *(f"{Figure.of(way, found[way, size]).mean:.3g}" for size in SIZES)]
            for way, name in WAYS.items()
        ]
        print(table(["credit", *map(str, SIZES)], cells))
    print()
    if args.plot is not None:
        plot(args.plot, panels)
    gain, times = figures["gain"].mean, figures["variance ratio"].mean
    return conclude(
        HERE.name, GATE, figures, {"gain >= 1.0": gain >= 1.0, "variance ratio <= 0.1": times <= 0.1}
    )


def noise(
    sweep: Sweep, seeds: list[int], steps: int
) -> tuple[dict[int, float], dict[tuple[str, int], dict[int, float]]]:
    """The value after some steps, by seed, and the variance of each way and size."""
    jobs = {
        seed: sweep.job(
            f"noise-{steps}-{seed}", student=["--steps", steps, "--seed", seed, "--noise", *SIZES]
        )
        for seed in seeds
    }
    values = {seed: found["value"] for seed, found in jobs.items()}
    return values, {
        (way, size): {seed: found[f"{way}_{size}"] for seed, found in jobs.items()}
        for way in WAYS
        for size in SIZES
    }


def plot(path: Path, panels: Mapping[str, Mapping[tuple[str, int], Mapping[int, float]]]) -> None:
    """The variance as the candidate set grows."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(8, 3.2), sharey=True, layout="constrained")
    for axis, (title, found) in zip(axes, panels.items(), strict=True):
        for way, name in WAYS.items():
            means = [Figure.of(way, found[way, size]).mean for size in SIZES]
            axis.loglog(SIZES, means, marker="o", markersize=3, label=name)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("candidates of 1000 items", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("variance of the logit gradient", fontsize=8)
    axes[-1].legend(fontsize=7)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
