"""The table: normal training, online distillation, and served teachers, still and coming and going.

The rates are wall-clock figures: run it on a machine that does nothing else. The online process computes on
all cores; in a job every process has one thread, the teachers' two workers and the student side by side.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.common.errors import SweepError
from examples.common.figures import Figure, table
from examples.common.sweep import Metrics, Sweep, conclude, options
from examples.image.fleet import Fleet, draw, images_per_s

HERE = Path(__file__).resolve().parent
GATE = "same budget: served accuracy >= online - 1 point, and more images/s served than online"
PICTURE = "images_per_s.png"
FLEET_EPOCHS = 100  # of the run in which workers come and go: a worker needs seconds to start


def main() -> int:
    parser = options(__doc__, HERE)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--fleet-epochs", type=int, default=FLEET_EPOCHS)
    args = parser.parse_args()
    sweep = Sweep(HERE, args.output)
    subprocess.run([sys.executable, str(HERE / "prepare.py")], check=True, stdout=sys.stderr)
    runs: dict[str, dict[int, Metrics]] = {"normal": {}, "online": {}, "served": {}, "fleet": {}}
    for seed in args.seeds:
        budget = {"epochs": args.epochs, "seed": seed, "cores": os.cpu_count()}
        for name, labels in (("normal", "true"), ("online", "online")):
            runs[name][seed] = sweep.measure(
                f"{name}-{seed}", budget, lambda labels=labels, seed=seed: alone(labels, args.epochs, seed)
            )
        student = ["--epochs", args.epochs, "--seed", seed]
        runs["served"][seed] = served(sweep, seed, student)
        longer = {"epochs": args.fleet_epochs, "seed": seed}
        runs["fleet"][seed] = sweep.measure(
            f"fleet-{seed}", longer, lambda seed=seed: fleet(args.output, args.fleet_epochs, seed)
        )

    def figure(name: str, what: str) -> Figure:
        return Figure.of(f"{name}, {what}", {seed: found[what] for seed, found in runs[name].items()})

    figures = {f"{name}_{what}": figure(name, what) for name in runs for what in ("accuracy", "images_per_s")}
    ratios = {
        seed: runs["served"][seed]["images_per_s"] / found["images_per_s"]
        for seed, found in runs["online"].items()
    }
    figures["served_over_online"] = Figure.of("served / online", ratios)
    words = {
        "normal": "normal training, true labels",
        "online": "online distillation, one process",
        "served": "served, two workers",
        "fleet": f"served, workers come and go ({args.fleet_epochs} epochs)",
    }
    rows = [
        [text, f"{figures[f'{name}_accuracy']:.1f}", f"{figures[f'{name}_images_per_s']:.0f}"]
        for name, text in words.items()
    ]
    print(table(["student", "accuracy", "images/s"], rows))
    print(f"\nserved / online: {figures['served_over_online']:.2f} x")
    gate = {
        "served accuracy >= online - 1 point": figures["served_accuracy"].mean
        >= figures["online_accuracy"].mean - 1,
        "served / online > 1": figures["served_over_online"].mean > 1,
    }
    return conclude(HERE.name, GATE, figures, gate)


def alone(labels: str, epochs: int, seed: int) -> dict[str, float]:
    """One process with a thread for each core."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, str(HERE / "plain.py"), "--labels", labels, "--result", str(result)]
        environment = os.environ | {"OMP_NUM_THREADS": str(os.cpu_count() or 1)}
        given = ["--epochs", str(epochs), "--seed", str(seed)]
        code = subprocess.run([*command, *given], env=environment, stdout=sys.stderr, check=False).returncode
        if code != 0:
            raise SweepError(f"plain.py --labels {labels} ended with exit code {code}")
        found: dict[str, float] = json.loads(result.read_text(encoding="utf-8"))
        return found


def served(sweep: Sweep, seed: int, student: Sequence[object]) -> Metrics:
    """A job with two workers from its beginning to its end."""
    found = sweep.job(f"served-{seed}", {"teachers.0.replicas": 2}, student=student)
    rate = json.loads((found.origin / "result.json").read_text(encoding="utf-8"))["samples_per_s"]
    return Metrics({"accuracy": found["accuracy"], "images_per_s": rate}, found.origin)


def fleet(output: Path, epochs: int, seed: int) -> dict[str, Any]:
    """The job while its workers come and go; draws its picture."""
    folder = output / f"fleet-{seed}"
    given = ["--size", "32", "--epochs", str(epochs), "--seed", str(seed)]
    found = Fleet(folder, [f"student.args={json.dumps(given)}"]).run()
    draw(images_per_s(folder), folder / PICTURE)
    print(f"image: {folder / PICTURE}", file=sys.stderr)
    return {"accuracy": found["metrics"]["accuracy"], "images_per_s": found["samples_per_s"]}


if __name__ == "__main__":
    sys.exit(main())
