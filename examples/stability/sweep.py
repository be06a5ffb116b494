"""Jobs through both shocks, by optimizer, clipping and learning rate: the AUC of each behind the shock.

The bound of global-norm clipping was chosen on other seeds, as the best of five (see the README).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.common.figures import Figure, table
from examples.common.sweep import Sweep, conclude, options

HERE = Path(__file__).resolve().parent
GATE = "16 x the base rate, a new feature halfway: AUC with Clippy >= 0.98, with plain Adagrad <= 0.65"
CLIP = 0.1


def main() -> int:
    args = options(__doc__, HERE).parse_args()
    sweep = Sweep(HERE, args.output)

    def found(name: str, of: str, student: Sequence[object]) -> Figure:
        every = {
            seed: sweep.job(f"{name}-{seed}", student=[*student, "--seed", seed])[of] for seed in args.seeds
        }
        return Figure.of(f"{name} {of}", every)

    plain, broken = ("--optimizer", "adagrad"), ("--optimizer", "adagrad", "--rate", 1, "--shock", "batches")
    runs: dict[str, tuple[object, ...]] = {
        "adagrad_16": (*plain, "--rate", 16),
        "clippy_16": ("--optimizer", "clippy", "--rate", 16),
        "clipped_16": (*plain, "--rate", 16, "--clip", CLIP),
        "broken": broken,
        "guarded": (*broken, "--guard"),
        "adagrad_1": (*plain, "--rate", 1),
        "clippy_1": ("--optimizer", "clippy", "--rate", 1),
    }
    figures = {name: found(name, "auc", student) for name, student in runs.items()}
    figures["rollbacks"] = found("guarded", "rollbacks", runs["guarded"])

    words = {name: f"{figure:.4f}" for name, figure in figures.items()}
    rows = [
        ["1 x", words["adagrad_1"], "", words["clippy_1"]],
        ["16 x", words["adagrad_16"], words["clipped_16"], words["clippy_16"]],
    ]
    headings = ["base rate, a new feature halfway", "Adagrad", f"clipped to a norm of {CLIP}", "Clippy"]
    print(table(headings, rows), "\n")
    rows = [["AUC", words["broken"], words["guarded"]], ["rollbacks", "", f"{figures['rollbacks']:.1f}"]]
    print(table(["1 x, Adagrad, three broken batches", "as it is", "with the guard"], rows))
    gate = {
        "Clippy at 16 x: AUC >= 0.98": figures["clippy_16"].mean >= 0.98,
        "plain Adagrad at 16 x: AUC <= 0.65": figures["adagrad_16"].mean <= 0.65,
    }
    return conclude(HERE.name, GATE, figures, gate)


if __name__ == "__main__":
    sys.exit(main())
