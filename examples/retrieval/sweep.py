"""Run the steps of RocketQA and RocketQAv2 for several seeds, and judge the gate.

Each seed has a collection of its own. The students without a teacher are trained in this process, the others
in jobs. All go on from the same student, for as many steps.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.common.figures import Figure, differences, table
from examples.common.sweep import Metrics, Sweep, conclude, options
from examples.retrieval import recipe
from examples.retrieval.mining import Texts
from examples.retrieval.models import KINDS
from examples.retrieval.plain import train_plainly
from examples.retrieval.prepare import prepare, warmed_up, weights

HERE = Path(__file__).resolve().parent
JOBS = {"words": "job.yaml", "minilm": "minilm.yaml"}
GATE = (
    "MRR@10: undenoised < cross-batch < denoised, denoised >= undenoised + 8 points; "
    "R-precision: listwise, both learning >= denoised + 8 points"
)
METHODS = {
    "warm": "after the first steps, with which all others begin",
    "cross-batch": "cross-batch negatives",
    "undenoised": "and mined ones, undenoised",
    "denoised": "and mined ones, denoised by the teacher",
    "joint": "and pseudo labels and the order of lists, both models learning",
    "augmented": "denoised, and pseudo labels",
    "listwise": "denoised, pseudo labels and the order of lists, the teacher as it is",
}
PLAIN = ("warm", "cross-batch", "undenoised")  # without a teacher


def main() -> int:
    parser = options(__doc__, HERE)
    parser.add_argument("--encoder", choices=tuple(KINDS), default="words")
    args = parser.parse_args()
    sweep = Sweep(HERE, args.output)
    found: dict[str, dict[int, Metrics]] = {name: {} for name in METHODS}
    for name in METHODS:
        for seed in args.seeds:
            if name in PLAIN:
                made = partial(plainly, name, seed, args.encoder)
                settings = {"seed": seed, "encoder": args.encoder}
                found[name][seed] = sweep.measure(f"{name}-{seed}", settings, made)
            else:
                found[name][seed] = distilled(sweep, name, seed, args.encoder)
    mrr = {name: {seed: metrics["mrr"] for seed, metrics in each.items()} for name, each in found.items()}
    precision = {
        name: {seed: metrics["r_precision"] for seed, metrics in each.items()} for name, each in found.items()
    }
    figures = {f"mrr {name}": Figure.of(name, values) for name, values in mrr.items()}
    figures |= {f"r_precision {name}": Figure.of(name, values) for name, values in precision.items()}
    gains = {
        "cross-batch - undenoised, MRR@10": differences(mrr["cross-batch"], mrr["undenoised"]),
        "denoised - cross-batch, MRR@10": differences(mrr["denoised"], mrr["cross-batch"]),
        "denoised - undenoised, MRR@10": differences(mrr["denoised"], mrr["undenoised"]),
        "joint - denoised, R-precision": differences(precision["joint"], precision["denoised"]),
        "joint - augmented, R-precision": differences(precision["joint"], precision["augmented"]),
    }
    figures |= {name: Figure.of(name, values) for name, values in gains.items()}
    rows = [
        [title, f"{figures[f'mrr {name}']:.1f}", f"{figures[f'r_precision {name}']:.1f}"]
        for name, title in METHODS.items()
    ]
    print(table(["learns from", "MRR@10", "R-precision"], rows))
    print()
    print(table(["difference, seed by seed", "points"], [[name, f"{figures[name]:+.1f}"] for name in gains]))
    return conclude(HERE.name, GATE, figures, conditions(figures))


def conditions(figures: Mapping[str, Figure]) -> dict[str, bool]:
    bounds = {
        "cross-batch - undenoised, MRR@10": 0.0,
        "denoised - cross-batch, MRR@10": 0.0,
        "denoised - undenoised, MRR@10": 8.0,
        "joint - denoised, R-precision": 8.0,
    }
    return {
        f"{name} {'>=' if bound else '>'} {bound:g}": figures[name].mean >= bound and figures[name].mean > 0.0
        for name, bound in bounds.items()
    }


def plainly(name: str, seed: int, encoder: str) -> dict[str, float]:
    prepare(seed, encoder)
    args, kind = recipe.parsed(recipe.options(None), ["--encoder", encoder]), KINDS[encoder]
    collection = kind.collection(seed)
    texts, model = Texts(collection, kind.read), warmed_up(seed, encoder)
    if name != "warm":
        length = 1 if name == "cross-batch" else args.length
        train_plainly(model, kind, collection, texts, args.steps, seed, args.depth, length)
    return recipe.judge(model, texts, collection)


def distilled(sweep: Sweep, name: str, seed: int, encoder: str) -> Metrics:
    which = ["--seed", str(seed), "--encoder", encoder]
    settings = {"teachers.0.kwargs.seed": seed, "prepare.args": which}
    method = ["--method", "listwise" if name == "joint" else name]
    if name == "joint":
        method.append("--joint")
    else:
        settings["teachers.0.weights"] = f"examples/retrieval/build/{weights(seed, encoder)[1].name}"
    settings["student.args"] = [*which, *method]
    return sweep.job(f"{name}-{seed}", settings, job=JOBS[encoder])


if __name__ == "__main__":
    sys.exit(main())
