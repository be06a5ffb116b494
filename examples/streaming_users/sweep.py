"""Run the stream for several seeds, and the baseline beside it: what is meta-learning worth, and what going
on with it?

All students have the same labels of day 0, for as many steps. They are judged by users who come on the
stream's last day.
"""

from __future__ import annotations

import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.common.errors import SweepError
from examples.common.figures import Figure, differences, table
from examples.common.sweep import Sweep, conclude, options

HERE = Path(__file__).resolve().parent
GATE = "AUC offline >= pooled + fine-tuning + 2 points, and online >= offline + 0.5"


def main() -> int:
    args = options(__doc__, HERE).parse_args()
    sweep = Sweep(HERE, args.output)
    found: dict[str, dict[int, float]] = {name: {} for name in ("pooled", "finetuned", "offline", "online")}
    for seed in args.seeds:
        baseline = {"student.script": f"examples/{HERE.name}/plain.py"}
        pooled = sweep.job(f"plain-{seed}", baseline, student=["--seed", seed])
        stream = sweep.job(f"stream-{seed}", student=["--seed", seed])
        if stream["lost"] or stream["repeated"]:
            raise SweepError(
                f"seed {seed}: {stream['lost']:g} arrivals lost, {stream['repeated']:g} repeated"
            )
        for name, metrics in (
            ("pooled", pooled),
            ("finetuned", pooled),
            ("offline", stream),
            ("online", stream),
        ):
            found[name][seed] = metrics[f"{name}_auc"]
    figures = {name: Figure.of(name, values) for name, values in found.items()}
    figures["offline - finetuned"] = Figure.of("gain", differences(found["offline"], found["finetuned"]))
    figures["online - offline"] = Figure.of("gain", differences(found["online"], found["offline"]))
    rows = {
        "one network for everybody": "pooled",
        "the same, fine-tuned to each user": "finetuned",
        "fixed and adaptive parts, from day 0": "offline",
        "the adaptive part has gone on with the stream": "online",
    }
    print(table(["student", "AUC"], [[what, f"{figures[name]:.2f}"] for what, name in rows.items()]))
    offline, online = figures["offline - finetuned"].mean, figures["online - offline"].mean
    conditions = {
        f"offline - finetuned = {offline:.2f} >= 2": offline >= 2,
        f"online - offline = {online:.2f} >= 0.5": online >= 0.5,
    }
    return conclude(HERE.name, GATE, figures, conditions)


if __name__ == "__main__":
    sys.exit(main())
