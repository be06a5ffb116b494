"""Run before the job: train the teacher, and the plain student to compare with, where they are missing.

In a job the plain student's budget comes from ``student.args`` of the job itself, so that whatever
changes these (``--set student.args=...``) changes both students alike; arguments of its own, the same ones
as student.py's, win over that. Both results are kept in ``build/`` beside this script and made again when
a setting or the code that they depend on changes.
``reference.json``, in the job's folder, holds ``budget``, ``teacher_accuracy`` and ``plain_accuracy``
(one for each epoch).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# Python puts this script's folder on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from edldist.config import load_job
from examples.common.kept import fingerprint, kept_weights, write_json
from examples.digits import recipe
from examples.digits.data import DrawSampler, splits, train_loader
from examples.digits.models import parameters, student, teacher
from examples.digits.plain import train_plain

HERE = Path(__file__).resolve().parent
TEACHER_SEED = 1000  # apart from the students', so that no student repeats the teacher's augmentation
TEACHER_BATCH = 64
TEACHER_LR = 5e-3
TEACHER_EPOCHS = 10


def main(arguments: Sequence[str] | None = None) -> None:
    parser = recipe.options(__doc__)
    parser.add_argument("--teacher-epochs", type=int, default=TEACHER_EPOCHS)
    parser.add_argument("--build", type=Path, default=HERE / "build", help="where results are kept")
    own = sys.argv[1:] if arguments is None else arguments
    folder = recipe.output_folder()
    torch.set_num_threads(1)  # another number rounds otherwise: the README's table would not come out again
    args = parser.parse_args([*student_arguments(folder), *own])  # of an option given twice, the last counts
    args.build.mkdir(parents=True, exist_ok=True)

    teacher_accuracy = prepare_teacher(args.build / "teacher.safetensors", args.teacher_epochs)
    plain_accuracy = prepare_plain(args)
    reference = {
        "budget": recipe.budget(args),
        "teacher_accuracy": teacher_accuracy,
        "plain_accuracy": plain_accuracy,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "reference.json", reference)
    say(f"teacher {teacher_accuracy:.2%} with {parameters(teacher()):,} parameters")
    say(f"plain student {plain_accuracy[-1]:.2%} with {parameters(student()):,} parameters")


def student_arguments(folder: Path) -> list[str]:
    """What the job whose folder this is will start student.py with; nothing where there is no job."""
    job = folder / "job.yaml"
    return load_job(job).student.args if job.exists() else []


def prepare_teacher(path: Path, epochs: int) -> float:
    """Make the teacher's weights if they are missing or outdated; its test accuracy."""
    key = fingerprint({"epochs": epochs}, modules("data", "models", "prepare"))
    return kept_weights(path, key, lambda: train_teacher(epochs))["accuracy"]


def train_teacher(epochs: int) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """The teacher's weights after training on the augmented digits, and its test accuracy."""
    say(f"teacher: no weights yet, training for {epochs} epochs")
    began = time.monotonic()
    torch.manual_seed(TEACHER_SEED)
    train, test = splits(TEACHER_SEED)
    sampler = DrawSampler(len(train), TEACHER_BATCH, seed=TEACHER_SEED, rank=0, world_size=1)
    loader = train_loader(train, sampler)
    model = teacher()
    optimizer = AdamW(model.parameters(), lr=TEACHER_LR, weight_decay=1e-2)
    scheduler = OneCycleLR(optimizer, TEACHER_LR, total_steps=epochs * len(loader))
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for batch in loader:
            loss = cross_entropy(model(batch["image"]), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        if (epoch + 1) % 5 == 0 or epoch + 1 == epochs:
            spent_s = time.monotonic() - began
            reached = recipe.accuracy(model, test)
            say(f"teacher: epoch {epoch + 1}/{epochs}, test accuracy {reached:.2%}, {spent_s:.0f} s")
    return model.state_dict(), {"accuracy": recipe.accuracy(model, test)}


def prepare_plain(args: argparse.Namespace) -> list[float]:
    """Train the plain student, or find what it reached earlier; its test accuracy after each epoch."""
    key = fingerprint(recipe.budget(args), modules("data", "models", "plain", "recipe"))
    path = args.build / f"plain-{key}.json"
    if path.exists():
        found: list[float] = json.loads(path.read_text(encoding="utf-8"))
        return found
    say(f"plain student: training for {args.epochs} epochs, seed {args.seed}")
    accuracies = train_plain(args, say)
    write_json(path, accuracies)
    return accuracies


def modules(*names: str) -> list[Path]:
    """Files of this folder."""
    return [HERE / f"{name}.py" for name in names]


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
