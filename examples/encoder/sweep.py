"""Run the job for several seeds and compare, as Markdown: accuracy, retrieval, size and speed.

Each seed labels other texts. What is done is kept in ``--output`` and not done again.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from safetensors.torch import load_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from torch import nn

from examples.common.figures import Figure, table
from examples.common.sweep import Metrics, Sweep, options
from examples.encoder import recipe
from examples.encoder.models import Student, features, teacher
from examples.encoder.plain import trained_plainly
from examples.encoder.prepare import prepare
from examples.encoder.text import Split, split

HERE = Path(__file__).resolve().parent
COMPARED = (
    "accuracy of the teacher",
    "accuracy of the plain student, at the end",
    "accuracy of the plain student, at its best",
    "accuracy of TF-IDF and a logistic regression",
    "accuracy of the distilled student",
    "neighbours shared by teacher and TF-IDF",
    "neighbours shared by teacher and student",
)


def main() -> None:
    args = options(__doc__, HERE, range(8)).parse_args()
    sweep = Sweep(HERE, args.output)
    found = {seed: compared(sweep, seed) for seed in args.seeds}
    figures = {name: Figure.of(name, {seed: each[name] for seed, each in found.items()}) for name in COMPARED}
    rows = [[name, f"{figure:.1f}", len(found)] for name, figure in figures.items()]
    print(table(["", "percent", "seeds"], rows), end="\n\n")
    large, small, given = teacher(args.seeds[0]).eval(), Student().eval(), split(args.seeds[0])
    speeds = {
        "teacher": (large, speed(large, given)),
        "student": (small, speed(lambda texts: small([features(text) for text in texts]), given)),
    }
    rows = [
        [name, f"{sum(each.numel() for each in model.parameters()):,}", f"{rate:,.0f}"]
        for name, (model, rate) in speeds.items()
    ]
    print(table(["", "parameters", "texts/s of a core"], rows))


def compared(sweep: Sweep, seed: int) -> Metrics:
    """The job of a seed, and all that is compared with its student."""
    prepare(seed)
    arguments = ["--seed", seed]
    job = sweep.job(f"job-{seed}", {"teachers.0.kwargs.seed": seed}, prepare=arguments, student=arguments)
    return sweep.measure(f"compared-{seed}", {"job": job.origin.name}, lambda: of_seed(seed, job.origin))


@torch.no_grad()
def of_seed(seed: int, job: Path) -> dict[str, float]:
    """Every entry of ``COMPARED``, in percent."""
    student = Student()
    student.load_state_dict(load_file(job / "student.safetensors"))
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
    tested = recipe.neighbours(torch.from_numpy(test.toarray()).float())
    figures = (
        recipe.accuracy(logits, given),
        at_end,
        at_best,
        100 * fitted.score(test, given.answers),
        recipe.accuracy(learnt["logits"], given),
        recipe.agreement(tested, nearest),
        recipe.agreement(recipe.neighbours(learnt["embedding"]), nearest),
    )
    return dict(zip(COMPARED, figures, strict=True))


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


if __name__ == "__main__":
    main()
