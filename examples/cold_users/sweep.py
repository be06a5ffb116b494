"""Run the job for several seeds with searched and with fixed modulations, and see whether the search was
worth it.

Every student has the same teacher and as many steps: of the searched one the search is a part of them.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.cold_users import plain, recipe
from examples.cold_users.data import World
from examples.common.figures import Figure, table
from examples.common.sweep import Sweep, conclude, options

HERE = Path(__file__).resolve().parent
GATE = "mean query MSE of searched modulations <= 0.95 x that of fixed FiLM, same budget and teacher"


def main() -> int:
    parser = options(__doc__, HERE, seeds=(4, 5, 6, 7))
    parser.add_argument(
        "--more",
        action="store_true",
        help="all 12 modulations at once, and the search without a teacher, too",
    )
    args = parser.parse_args()
    sweep = Sweep(HERE, args.output)
    rows = {
        "search": "searched: 10 of 12, the search included",
        "film": "FiLM: mul and add of each layer",
    }
    if args.more:
        rows |= {"all": "all 12", "plain": "searched, without a teacher"}
    found: dict[str, dict[int, float]] = {name: {} for name in rows}
    for seed in args.seeds:
        for name, errors in found.items():
            student = ["--structure", name, "--seed", seed]
            if name == "plain":
                metrics = sweep.measure(f"plain-{seed}", {"seed": seed}, partial(plainly, seed))
            else:
                metrics = sweep.job(f"{name}-{seed}", student=student)
            errors[seed] = metrics["error"]
    figures = {name: Figure.of(name, values) for name, values in found.items()}
    ratios = {seed: found["search"][seed] / found["film"][seed] for seed in args.seeds}
    figures["search / film"] = Figure.of("search / film", ratios)
    print(
        table(["modulations", "query MSE"], [[what, f"{figures[name]:.4f}"] for name, what in rows.items()])
    )
    ratio = figures["search"].mean / figures["film"].mean
    return conclude(HERE.name, GATE, figures, {f"search / film = {ratio:.3f} <= 0.95": ratio <= 0.95})


def plainly(seed: int) -> dict[str, float]:
    return {"error": recipe.error(plain.main(["--seed", str(seed)]), World.made())}


if __name__ == "__main__":
    sys.exit(main())
