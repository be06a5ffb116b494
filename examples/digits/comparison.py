"""What the demo ends with: teacher and both students side by side, and how the fleet fared."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table
from torch import nn

from edldist.config import load_job
from edldist_launch.record.eventfile import read_events
from edldist_launch.view.console import PlainConsole
from examples.digits import recipe
from examples.digits.data import IMAGE_SIZE, splits
from examples.digits.models import CLASSES, parameters, student, teacher
from examples.digits.picture import draw
from examples.digits.story import Story
from examples.digits.sweep import gains, load_seeds
from examples.digits.throughput import Throughput, throughput

SPEED_BATCH = 64
SPEED_ROUNDS = 5
SPEED_ROUND_S = 0.2


@dataclass(frozen=True)
class Comparison:
    """The figures of one run, and beside them those of the README's table.

    ``accuracy``, ``labels`` (the true ones that it learnt from) and so on: by ``teacher``, ``plain`` and
    ``distilled``.
    """

    accuracy: dict[str, float]
    labels: dict[str, int]
    parameters: dict[str, int]
    images_per_s: dict[str, float]
    test_images: int
    gains: list[float]
    samples: int
    lost: int
    repeated: int
    throughput: Throughput

    @property
    def gain(self) -> float:
        """Of this run, in points."""
        return 100 * (self.accuracy["distilled"] - self.accuracy["plain"])

    def wrong(self, name: str) -> int:
        """How many test images it gets wrong."""
        return round((1 - self.accuracy[name]) * self.test_images)

    @property
    def spread(self) -> str:
        """Of the README's seeds: mean and sample standard deviation, in points."""
        return f"{statistics.mean(self.gains):+.1f} ± {statistics.stdev(self.gains):.1f}"

    @property
    def smaller(self) -> float:
        return self.parameters["teacher"] / self.parameters["distilled"]

    @property
    def faster(self) -> float:
        return self.images_per_s["distilled"] / self.images_per_s["teacher"]


def show_comparison(folder: Path, story: Story, name: str) -> None:
    """Print the table of the job that has just completed in ``folder``, and draw its picture there."""
    found = collect(folder)
    console = PlainConsole()
    console.print()
    console.print(table(found))
    for line in (*findings(found), *fleet(found, story)):
        console.print(line, soft_wrap=True)
    picture = folder / name
    draw(found, picture)
    console.print(f"picture     {picture}  (and {folder / 'curves.png'})", soft_wrap=True)


def collect(folder: Path) -> Comparison:
    """The figures of a completed job; measures both models' speed.

    Raises:
        SystemExit: the job left no accuracies.
    """
    metrics = json.loads((folder / "result.json").read_text(encoding="utf-8"))["metrics"]
    names = {"teacher": "teacher_accuracy", "plain": "plain_accuracy", "distilled": "accuracy"}
    if missing := [key for key in (*names.values(), "lost", "repeated") if key not in metrics]:
        raise SystemExit(f"{folder / 'result.json'} has no {', '.join(missing)}: nothing to compare")
    args = recipe.options(None).parse_args(load_job(folder / "job.yaml").student.args)
    train, test = splits(args.seed)
    small, large = student(), teacher()
    torch.set_num_threads(1)
    speed = {"teacher": speed_of(large), "distilled": speed_of(small)}
    return Comparison(
        accuracy={name: float(metrics[key]) for name, key in names.items()},
        labels={"teacher": len(train), "plain": CLASSES * args.labels_per_class, "distilled": 0},
        parameters={
            "teacher": parameters(large),
            "plain": parameters(small),
            "distilled": parameters(small),
        },
        images_per_s=speed | {"plain": speed["distilled"]},
        test_images=len(test),
        gains=gains(load_seeds()),
        samples=args.epochs * len(train),
        lost=int(metrics["lost"]),
        repeated=int(metrics["repeated"]),
        throughput=throughput(read_events(folder / "events.jsonl"), args.batch_size, len(train)),
    )


@torch.no_grad()
def speed_of(model: nn.Module) -> float:
    """Images per second of this thread, which computes alone: the median of some rounds."""
    model.eval()
    image = torch.rand(SPEED_BATCH, 1, IMAGE_SIZE, IMAGE_SIZE)
    model(image)
    rates = []
    for _ in range(SPEED_ROUNDS):
        images, began = 0, time.thread_time()  # what other programs take of the core is not counted
        while (spent_s := time.thread_time() - began) < SPEED_ROUND_S or not images:
            model(image)
            images += SPEED_BATCH
        rates.append(images / spent_s)
    return statistics.median(rates)


def table(found: Comparison) -> Table:
    """Who learnt from what, how well, how large, how fast."""
    grid = Table(
        title=f"teacher and students, {found.test_images} test images",
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )
    for heading in ("", "learnt from", "accuracy", "wrong", "parameters", "images/s"):
        grid.add_column(heading, justify="left" if heading in ("", "learnt from") else "right", no_wrap=True)
    sources = {
        "teacher": f"{found.labels['teacher']:,} true labels",
        "plain": f"{found.labels['plain']:,} true labels",
        "distilled": "teacher's labels",
    }
    for name, style in (("teacher", ""), ("plain", "yellow"), ("distilled", "bold green")):
        grid.add_row(
            name if name == "teacher" else f"{name} student",
            sources[name],
            f"{found.accuracy[name]:.2%}",
            str(found.wrong(name)),
            f"{found.parameters[name]:,}",
            f"{found.images_per_s[name]:,.0f}",
            style=style,
        )
    return grid


def findings(found: Comparison) -> list[str]:
    """The gain, and what the student is beside its teacher."""
    positive = sum(gain > 0 for gain in found.gains)
    return [
        f"gain        {found.gain:+.1f} points; over {len(found.gains)} seeds {found.spread}, "
        f"{min(found.gains):+.1f} to {max(found.gains):+.1f}, positive in {positive}",
        f"student     {found.smaller:.0f} times smaller and {found.faster:.0f} times faster than its teacher "
        "(one thread)",
    ]


def fleet(found: Comparison, story: Story) -> list[str]:
    """What became of the workers, and of the samples."""
    killed = f"{story.killed} killed" if story.killed else "nobody was killed (the run was too short)"
    joined = (
        f"{story.guest} joined" if story.guest_joined else "nobody joined in time (the run was too short)"
    )
    return [
        f"fleet       {killed}, {joined}",
        f"samples     {found.samples:,} counted in the training loop: "
        f"{found.lost} lost, {found.repeated} repeated",
    ]
