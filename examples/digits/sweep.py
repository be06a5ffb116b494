"""Run the digits job for several seeds and print what distillation changed, as a Markdown table."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import edldist.config

JOB = Path(__file__).with_name("job.yaml")
COLUMNS = {"teacher": "teacher_accuracy", "plain student": "plain_accuracy", "distilled student": "accuracy"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--output", type=Path, default=Path("out/digits-sweep"), help="a folder a seed in here"
    )
    args = parser.parse_args()
    arguments = edldist.config.load_job(JOB).student.args
    results = {}
    for seed in args.seeds:
        print(f"seed {seed}", file=sys.stderr)
        results[seed] = run(seed, arguments, args.output / f"seed-{seed}")
    print(table(results))


def run(seed: int, arguments: Sequence[str], folder: Path) -> dict[str, Any]:
    """One job; its result.json. A folder whose job has completed is not run again.

    Raises:
        SystemExit: the job failed.
    """
    path = folder / "result.json"
    if not path.exists() or json.loads(path.read_text(encoding="utf-8"))["status"] != "completed":
        seeded = json.dumps([*arguments, "--seed", str(seed)])  # of an option given twice, the last counts
        command = [sys.executable, "-m", "edldist_launch", "run", str(JOB), "--output", str(folder)]
        command += ["--set", f"student.args={seeded}"]
        code = subprocess.run(command, stdout=sys.stderr, check=False).returncode
        if code != 0:
            raise SystemExit(f"the job of seed {seed} ended with exit code {code}; see {folder}/logs")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def table(results: Mapping[int, Mapping[str, Any]]) -> str:
    """A row a seed, then mean and sample standard deviation; test accuracies in per cent."""
    lines = [
        f"| seed | {' | '.join(COLUMNS)} | wall [s] |",
        f"|---|{'---|' * (len(COLUMNS) + 1)}",
    ]
    for seed, result in results.items():
        figures = [f"{100 * result['metrics'][metric]:.2f}" for metric in COLUMNS.values()]
        lines.append(f"| {seed} | {' | '.join(figures)} | {result['wall_s']:.0f} |")
    if len(results) > 1:
        summary = []
        for metric in COLUMNS.values():
            values = [100 * result["metrics"][metric] for result in results.values()]
            summary.append(f"**{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}**")
        lines.append(f"| mean ± sd | {' | '.join(summary)} | |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
