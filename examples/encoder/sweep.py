"""Run the job for several seeds and compare, as Markdown: accuracy, retrieval, size and speed.

Each seed labels other texts. What is done is kept in ``--output`` and not done again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from safetensors.torch import load_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from torch import nn

from examples.encoder import recipe
from examples.encoder.models import Student, features, teacher
from examples.encoder.plain import trained_plainly
from examples.encoder.prepare import prepare
from examples.encoder.text import Split, split

JOB = Path(__file__).resolve().parent / "job.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(8)))
    parser.add_argument("--output", type=Path, default=Path("out/encoder-sweep"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {}
    for seed in args.seeds:
        for name, value in compared(seed, args.output).items():
            found.setdefault(name, []).append(value)
    print("| | percent | seeds |\n|---|---|---|")
    for name, values in found.items():
        print(row(name, values))
    print("\n| | parameters | texts/s of a core |\n|---|---|---|")
    given = split(args.seeds[0])
    for name, model, call in (
        ("teacher", large := teacher(args.seeds[0]).eval(), large),
        ("student", small := Student().eval(), lambda texts: small([features(text) for text in texts])),
    ):
        print(
            f"| {name} | {sum(each.numel() for each in model.parameters()):,} | {speed(call, given):,.0f} |"
        )


def compared(seed: int, folder: Path) -> dict[str, float]:
    path = folder / f"{seed}.json"
    if not path.exists():
        prepare(seed)
        found = of_seed(seed, distilled(seed, folder / f"job-{seed}"))
        path.write_text(json.dumps(found), encoding="utf-8")
    return {name: float(value) for name, value in json.loads(path.read_text(encoding="utf-8")).items()}


@torch.no_grad()
def of_seed(seed: int, student: Student) -> dict[str, float]:
    given = split(seed)
    with torch.enable_grad():
        at_end, at_best = trained_plainly(given, seed, steps=400)
    large = teacher(seed).eval()
    said = [large(given.test[at : at + 64]) for at in range(0, len(given.test), 64)]
    logits, embeddings = (torch.cat([each[name] for each in said]) for name in ("logits", "embedding"))
    learnt = recipe.answers(student, given.test)
    nearest = recipe.neighbours(embeddings)
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)).fit([*given.labelled, *given.unlabelled])
    labelled, test = words.transform(given.labelled), words.transform(given.test)
    fitted = LogisticRegression(C=10.0, max_iter=2_000).fit(labelled, given.subjects)
    by_words = torch.from_numpy(test.toarray()).float()
    return {
        "accuracy of the teacher": recipe.accuracy(logits, given),
        "accuracy of the plain student, at the end": at_end,
        "accuracy of the plain student, at its best": at_best,
        "accuracy of TF-IDF and a logistic regression": 100 * fitted.score(test, given.answers),
        "accuracy of the distilled student": recipe.accuracy(learnt["logits"], given),
        "neighbours shared by teacher and TF-IDF": recipe.agreement(recipe.neighbours(by_words), nearest),
        "neighbours shared by teacher and student": recipe.agreement(
            recipe.neighbours(learnt["embedding"]), nearest
        ),
    }


def distilled(seed: int, out: Path) -> Student:
    """The student of a job.

    Raises:
        SystemExit: the job failed.
    """
    weights = out / "student.safetensors"
    if not weights.exists():
        settings = {
            "prepare.args": f"[--seed, {seed}]",
            "teachers.0.kwargs.seed": str(seed),
            "student.args": f"[--seed, {seed}]",
        }
        options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        command = [sys.executable, "-m", "edldist_launch", "run", str(JOB), "--output", str(out), *options]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        code = subprocess.run(command, stdout=sys.stderr, env=environment, check=False).returncode
        if code != 0:
            raise SystemExit(f"the job in {out} ended with exit code {code}; see {out}/logs")
    student = Student()
    student.load_state_dict(load_file(weights))
    return student


@torch.no_grad()
def speed(model: nn.Module | Callable[[list[str]], object], given: Split) -> float:
    """Test texts a second, from the text on: the median of five times 64."""
    took = []
    for at in range(5):
        texts = given.test[at * 64 : (at + 1) * 64]
        begun = time.process_time()
        model(texts)
        took.append((time.process_time() - begun) / len(texts))
    return 1 / statistics.median(took)


def row(what: str, values: Sequence[float]) -> str:
    """Mean and standard error."""
    error = f" ± {statistics.stdev(values) / math.sqrt(len(values)):.1f}" if len(values) > 1 else ""
    return f"| {what} | {statistics.mean(values):.1f}{error} | {len(values)} |"


if __name__ == "__main__":
    main()
