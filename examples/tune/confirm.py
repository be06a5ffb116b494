"""Run recommended settings beside a job's own, with seeds that the tuning did not use, and print a table.

Each is a whole job, run by ``edldist run``; what is done is kept and not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

# Python puts this script's folder on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.common.figures import Figure, differences, table
from examples.common.sweep import Sweep

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tuning", type=Path, help="the folder of the tuning, as in out/digits-in-brief-tune")
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102, 103, 104], metavar="SEED")
    parser.add_argument(
        "--output", type=Path, default=Path("out/tune-confirm"), help="what is done lies here"
    )
    args = parser.parse_args()
    best = json.loads((args.tuning / "tune.json").read_text(encoding="utf-8"))["best_values"]
    if best is None:
        raise SystemExit(f"{args.tuning}/tune.json recommends nothing: no trial held the constraints")
    tuned = [word for key, value in best.items() for word in (key, value)]
    sweep = Sweep(HERE, args.output)
    found = {
        name: {
            seed: sweep.job(f"{name}-{seed}", student=[*given, "--seed", seed])["accuracy"]
            for seed in args.seeds
        }
        for name, given in (("the job's own settings", []), ("the recommended settings", tuned))
    }
    own, recommended = found.values()
    rows = [[name, f"{Figure.of(name, each):.4f}"] for name, each in found.items()]
    rows.append(["difference", f"{Figure.of('difference', differences(recommended, own)):+.4f}"])
    print(table([f"{len(args.seeds)} seeds", "accuracy"], rows))


if __name__ == "__main__":
    main()
