"""Run the job for several seeds, texts and codecs, and print what the students need for held-out text, as
Markdown.

The plain student is trained in this process. What is done is kept in ``--output`` and not done again.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

# Python puts this script's folder on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from examples.common.figures import Figure, differences, table
from examples.common.sweep import Metrics, Sweep, options
from examples.lm.models import student
from examples.lm.text import read
from examples.lm.training import train_on_text

HERE = Path(__file__).resolve().parent
CODECS = ("dense", "topk:32", "rs:18", "hidden")


def main() -> None:
    parser = options(__doc__, HERE, range(5))
    parser.add_argument("--texts", nargs="+", choices=("scarce", "all"), default=["scarce", "all"])
    parser.add_argument("--codecs", nargs="+", default=list(CODECS), metavar="CODEC")
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    sweep, rows = Sweep(HERE, args.output), []

    def add(text: str, student: str, values: Mapping[int, float]) -> None:
        rows.append([text, student, Figure.of(student, values), len(values)])

    for text in args.texts:
        plain = {seed: trained_plainly(sweep, text, seed, args.steps) for seed in args.seeds}
        at_end = {seed: found["at_end"] for seed, found in plain.items()}
        add(text, "plain, at the end", at_end)
        add(text, "plain, at its best", {seed: found["at_best"] for seed, found in plain.items()})
        for codec in args.codecs:
            found = {seed: distilled(sweep, text, codec, seed, args.steps) for seed in args.seeds}
            add(text, f"distilled, `{codec}`", found)
            add(text, f"`{codec}` less plain at the end", differences(found, at_end))
    print(table(["text", "student", "bits per byte", "seeds"], rows))


def trained_plainly(sweep: Sweep, text: str, seed: int, steps: int) -> Metrics:
    """Bits per byte ``at_end`` and ``at_best``, of every 25 steps."""
    settings = {"text": text, "seed": seed, "steps": steps}
    return sweep.measure(f"plain-{text}-{seed}", settings, partial(train_plainly, **settings))


def train_plainly(text: str, seed: int, steps: int) -> dict[str, float]:
    torch.manual_seed(seed)
    found = train_on_text(student(), read(text), steps, seed)
    return {"at_end": found[-1], "at_best": min(found)}


def distilled(sweep: Sweep, text: str, codec: str, seed: int, steps: int) -> float:
    """Bits per byte at the end of a job."""
    output = "hidden" if codec == "hidden" else "logits"
    found = sweep.job(
        f"{codec.replace(':', '-')}-{text}-{seed}",
        {"teachers.0.codec": codec, "teachers.0.outputs": [output]},
        student=["--text", text, "--steps", steps, "--seed", seed],
    )
    return found["bits_per_byte"]


if __name__ == "__main__":
    main()
