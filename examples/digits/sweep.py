"""Train the students that are compared, for several seeds, and print what distillation changed, as Markdown.

Each is trained in this process, without a job, on one thread; ``--fleet`` runs the job of each seed as well,
with its workers, and fails where the distilled student's accuracy is not the same. What is done is kept in
``out/digits-sweep`` and not done again until a setting or the code that it depends on changes.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# Python puts this script's folder on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edldist.config import load_job
from examples.common.kept import write_json
from examples.common.sweep import Sweep, options
from examples.digits import prepare, recipe
from examples.digits.variants import VARIANTS, train_variant

HERE = Path(__file__).resolve().parent
JOB = HERE / "job.yaml"
SEEDS_FILE = HERE / "seeds.json"
MODULES = ("data", "models", "plain", "prepare", "recipe", "variants")
TITLES = {
    "plain": "plain, 50 labels",
    "mixup": "plain with mixup",
    "distilled": "distilled, no labels",
    "distilled_on_few": "distilled, the same 50 images",
    "all_labels": "plain, all 1,198 labels",
}

PUBLISHED = ("plain", "mixup", "distilled", "all_labels")

Accuracies = dict[int, dict[str, float]]


def main() -> None:
    parser = options(__doc__, HERE, range(20))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(PUBLISHED))
    parser.add_argument("--fleet", action="store_true", help="run each seed's job, too, and compare")
    parser.add_argument("--write", action="store_true", help=f"keep the accuracies in {SEEDS_FILE.name}")
    args = parser.parse_args()
    sweep = Sweep(HERE, args.output, prepare.modules(*MODULES))
    weights = HERE / "build" / "teacher.safetensors"
    prepare.prepare_teacher(weights, prepare.TEACHER_EPOCHS)

    found: Accuracies = {}
    for seed in args.seeds:
        found[seed] = {}
        for variant in args.variants:
            found[seed][variant] = trained(sweep, variant, seed, weights)
            print(f"seed {seed}: {variant} {found[seed][variant]:.2%}", file=sys.stderr, flush=True)
        if args.fleet:
            compare_with_fleet(Sweep(HERE, args.output), seed, found[seed]["distilled"])
    if args.write:
        write_json(SEEDS_FILE, found)
    print(table(found))


def trained(sweep: Sweep, variant: str, seed: int, weights: Path) -> float:
    """The test accuracy of one student, trained now or earlier."""
    args = recipe.options(None).parse_args([*load_job(JOB).student.args, "--seed", str(seed)])
    found = sweep.measure(
        f"{variant}-{seed}",
        vars(args),
        lambda: {"accuracy": train_variant(variant, args, weights)[1][-1]},
    )
    return found["accuracy"]


def compare_with_fleet(sweep: Sweep, seed: int, expected: float) -> None:
    """Run the seed's job, or find what it reached earlier, and compare.

    Raises:
        SystemExit: the job failed, or its student is another than the one trained in this process.
    """
    found = sweep.job(f"job-{seed}", student=["--seed", seed])["accuracy"]
    print(f"seed {seed}: distilled by the job {found:.2%}", file=sys.stderr, flush=True)
    if found != expected:
        raise SystemExit(f"seed {seed}: {found:.2%} in the job, {expected:.2%} in one process")


def gains(found: Mapping[int, Mapping[str, float]]) -> list[float]:
    """Of each seed, in points: the distilled student's accuracy less the plain one's."""
    return [100 * (row["distilled"] - row["plain"]) for row in found.values()]


def table(found: Mapping[int, Mapping[str, float]]) -> str:
    """A row a seed, then mean and sample standard deviation; test accuracies in per cent, gains in points."""
    variants = list(next(iter(found.values())))
    columns = {TITLES[name]: [100 * row[name] for row in found.values()] for name in variants}
    if {"plain", "distilled"} <= set(variants):
        columns["gain"] = gains(found)
    lines = [f"| seed | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for place, seed in enumerate(found):
        lines.append(f"| {seed} | {' | '.join(_shown(columns, place))} |")
    if len(found) > 1:
        cells = [f"**{statistics.mean(c):.2f} ± {statistics.stdev(c):.2f}**" for c in columns.values()]
        lines.append(f"| mean ± sd | {' | '.join(cells)} |")
        lines.append(f"| lowest | {' | '.join(f'{min(c):.2f}' for c in columns.values())} |")
    return "\n".join(lines)


def _shown(columns: Mapping[str, Sequence[float]], place: int) -> list[str]:
    return [f"{c[place]:+.2f}" if title == "gain" else f"{c[place]:.2f}" for title, c in columns.items()]


def load_seeds(path: Path = SEEDS_FILE) -> Accuracies:
    """The accuracies of the README's table, by seed and variant."""
    found: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8"))
    return {int(seed): row for seed, row in found.items()}


if __name__ == "__main__":
    main()
