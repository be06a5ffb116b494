"""Run the job for several seeds, texts and codecs, and print what the students need for held-out text, as
Markdown.

The plain student is trained in this process. What is done is kept in ``--output`` and not done again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# Python puts this script's folder on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from examples.lm import prepare
from examples.lm.models import student
from examples.lm.text import read
from examples.lm.training import train_on_text

JOB = Path(__file__).resolve().parent / "job.yaml"
CODECS = ("dense", "topk:32", "rs:18", "hidden")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--texts", nargs="+", choices=("scarce", "all"), default=["scarce", "all"])
    parser.add_argument("--codecs", nargs="+", default=list(CODECS), metavar="CODEC")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--output", type=Path, default=Path("out/lm-sweep"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    prepare.main()
    print("| text | student | bits per byte | seeds |\n|---|---|---|---|")
    for text in args.texts:
        plain = [trained_plainly(text, seed, args.steps, args.output) for seed in args.seeds]
        print(row(text, "plain, at the end", [found[-1] for found in plain]))
        print(row(text, "plain, at its best", [min(found) for found in plain]))
        for codec in args.codecs:
            found = [distilled(text, codec, seed, args.steps, args.output) for seed in args.seeds]
            print(row(text, f"distilled, `{codec}`", found), flush=True)
            gains = [one - other for one, other in zip(found, (each[-1] for each in plain), strict=True)]
            print(row(text, f"`{codec}` less plain at the end", gains), flush=True)


def trained_plainly(text: str, seed: int, steps: int, folder: Path) -> list[float]:
    """Bits per byte every 25 steps."""
    path = folder / f"plain-{text}-{steps}-{seed}.json"
    if not path.exists():
        torch.manual_seed(seed)
        found = train_on_text(student(), read(text), steps, seed)
        path.write_text(json.dumps(found), encoding="utf-8")
    return [float(value) for value in json.loads(path.read_text(encoding="utf-8"))]


def distilled(text: str, codec: str, seed: int, steps: int, folder: Path) -> float:
    """Bits per byte at the end of a job.

    Raises:
        SystemExit: the job failed.
    """
    out = folder / f"{codec.replace(':', '-')}-{text}-{steps}-{seed}"
    result = out / "result.json"
    if not result.exists() or json.loads(result.read_text(encoding="utf-8"))["status"] != "completed":
        output = "hidden" if codec == "hidden" else "logits"
        settings = {
            "teachers.0.codec": codec,
            "teachers.0.outputs": f"[{output}]",
            "student.args": json.dumps(["--text", text, "--steps", str(steps), "--seed", str(seed)]),
        }
        options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        command = [sys.executable, "-m", "edldist_launch", "run", str(JOB), "--output", str(out), *options]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        code = subprocess.run(command, stdout=sys.stderr, env=environment, check=False).returncode
        if code != 0:
            raise SystemExit(f"the job in {out} ended with exit code {code}; see {out}/logs")
    return float(json.loads(result.read_text(encoding="utf-8"))["metrics"]["bits_per_byte"])


def row(text: str, what: str, values: Sequence[float]) -> str:
    """Mean and standard error."""
    error = f" ± {statistics.stdev(values) / math.sqrt(len(values)):.3f}" if len(values) > 1 else ""
    return f"| {text} | {what} | {statistics.mean(values):.3f}{error} | {len(values)} |"


if __name__ == "__main__":
    main()
