"""Train the students that are compared, for several seeds, and print what distillation changed, as Markdown.

Each is trained in this process, without a job, on one thread; ``--fleet`` runs the job of each seed as well,
with its workers, and fails where the distilled student's accuracy is not the same. What is done is kept in
``out/digits-sweep`` and not done again until a setting or the code that it depends on changes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# Python puts this script's folder on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

import edldist.config
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(20)))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(PUBLISHED))
    parser.add_argument("--fleet", action="store_true", help="run each seed's job, too, and compare")
    parser.add_argument("--write", action="store_true", help=f"keep the accuracies in {SEEDS_FILE.name}")
    parser.add_argument(
        "--output", type=Path, default=Path("out/digits-sweep"), help="what is done lies here"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)  # as in the job's processes: another number rounds otherwise
    args.output.mkdir(parents=True, exist_ok=True)
    build = HERE / "build"
    build.mkdir(exist_ok=True)
    prepare.prepare_teacher(build / "teacher.safetensors", prepare.TEACHER_EPOCHS)

    found: Accuracies = {}
    for seed in args.seeds:
        found[seed] = {}
        for variant in args.variants:
            found[seed][variant] = trained(variant, seed, build / "teacher.safetensors", args.output)
            print(f"seed {seed}: {variant} {found[seed][variant]:.2%}", file=sys.stderr, flush=True)
        if args.fleet:
            compare_with_fleet(seed, found[seed]["distilled"], args.output / f"job-{seed}")
    if args.write:
        prepare.write_json(SEEDS_FILE, found)
    print(table(found))


def trained(variant: str, seed: int, weights: Path, folder: Path) -> float:
    """The test accuracy of one student, trained now or earlier."""
    args = recipe.options(None).parse_args([*edldist.config.load_job(JOB).student.args, "--seed", str(seed)])
    key = prepare.fingerprint(vars(args), *MODULES)
    path = folder / f"{variant}-{seed}-{key}.json"
    if not path.exists():
        prepare.write_json(path, train_variant(variant, args, weights)[1][-1])
    return float(json.loads(path.read_text(encoding="utf-8")))


def compare_with_fleet(seed: int, expected: float, folder: Path) -> None:
    """Run the seed's job and compare. A folder whose job has completed is not run again.

    Raises:
        SystemExit: the job failed, or its student is another than the one trained in this process.
    """
    path = folder / "result.json"
    if not path.exists() or json.loads(path.read_text(encoding="utf-8"))["status"] != "completed":
        # Of an option given twice, the last counts.
        seeded = json.dumps([*edldist.config.load_job(JOB).student.args, "--seed", str(seed)])
        command = [sys.executable, "-m", "edldist_launch", "run", str(JOB), "--output", str(folder)]
        command += ["--set", f"student.args={seeded}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        code = subprocess.run(command, stdout=sys.stderr, env=environment, check=False).returncode
        if code != 0:
            raise SystemExit(f"the job of seed {seed} ended with exit code {code}; see {folder}/logs")
    found = json.loads(path.read_text(encoding="utf-8"))["metrics"]["accuracy"]
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
