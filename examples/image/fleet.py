"""Run the job while its workers come and go, and draw the images per second.

``edldist scale`` asks for a third worker, ``edldist teacher`` adds one that is three times as slow, ``kill
-9`` ends one, which the launcher starts again, and at the end one is left (``story.py``)::

    python examples/image/fleet.py --output out/image-fleet --picture out/image-fleet/images_per_s.png
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edldist.config import load_job
from edldist_launch.process.tie import tied_command
from edldist_launch.record.eventfile import read_events
from examples.digits.demo import follow
from examples.digits.throughput import Throughput, throughput
from examples.image import recipe
from examples.image.story import GUEST, Act, Join, Kill, Scale, Story

ROOT = Path(__file__).resolve().parents[2]
JOB = Path(__file__).resolve().parent / "job.yaml"
EDLDIST = [sys.executable, "-m", "edldist_launch"]
SLOWER = 3.0
LEAVE_S = 15.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("out/image-fleet"))
    parser.add_argument("--picture", type=Path, help="default: images_per_s.png in the output folder")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of edldist run")
    args = parser.parse_args()
    found = Fleet(args.output, args.set).run()
    draw(images_per_s(args.output), args.picture or args.output / "images_per_s.png")
    print(json.dumps(found))


class Fleet:
    """The processes: the job, and the slow worker that joins it.

    Args:
        folder: of the job, a new one.
        settings: ``KEY=VALUE`` changes to the job, as for ``edldist run --set``.
    """

    def __init__(self, folder: Path, settings: Sequence[str]) -> None:
        self.story = Story()
        self._folder = folder
        self._settings = list(settings)
        self._guest: subprocess.Popen[bytes] | None = None
        self._askers: list[subprocess.Popen[bytes]] = []

    def run(self) -> dict[str, Any]:
        """Run the job to its end; its ``result.json``.

        Raises:
            SystemExit: it failed.
        """
        options = [part for setting in self._settings for part in ("--set", setting)]
        command = [*EDLDIST, "run", str(JOB), "--output", str(self._folder), "--fresh", *options]
        job = self._start(command, stdout=sys.stderr)
        try:
            for event in follow(self._folder / "events.jsonl", job):
                for act in self.story.see(event):
                    self._do(act)
            if (code := job.wait()) != 0:
                raise SystemExit(f"the job in {self._folder} ended with exit code {code}: see its logs")
        finally:
            for process in (*self._askers, *([self._guest] if self._guest else []), job):
                _end(process)
        found: dict[str, Any] = json.loads((self._folder / "result.json").read_text(encoding="utf-8"))
        return found

    def _do(self, act: Act) -> None:
        print(f"fleet: {act}", file=sys.stderr, flush=True)
        if isinstance(act, Scale):
            command = [*EDLDIST, "scale", f"teacher={act.workers}", "--output", str(self._folder)]
            self._askers.append(self._start(command, stdout=subprocess.DEVNULL))
        elif isinstance(act, Kill):
            with contextlib.suppress(ProcessLookupError):
                os.kill(act.pid, signal.SIGKILL)
        elif isinstance(act, Join):
            self._guest = self._start(self._slow(act.coordinator), stdout=subprocess.DEVNULL)
        elif self._guest is not None:
            self._guest.terminate()

    def _slow(self, coordinator: str) -> list[str]:
        teacher = load_job(JOB, self._settings).teachers[0]
        arguments = {**teacher.kwargs, "times": SLOWER}
        given = [part for name, value in arguments.items() for part in ("--model-arg", f"{name}={value}")]
        who = ["--coordinator", coordinator, "--id", GUEST, "--model", teacher.model]
        return [*EDLDIST, "teacher", *who, "--weights", str(teacher.weights), *given]

    def _start(self, command: Sequence[str], stdout: Any) -> subprocess.Popen[bytes]:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        tied = tied_command(list(command), os.getpid())
        return subprocess.Popen(tied, cwd=ROOT, env=environment, stdout=stdout, start_new_session=True)


def images_per_s(folder: Path) -> Throughput:
    """The rate of a job over time, and who came and went, from its events."""
    args = recipe.options(None).parse_args(load_job(folder / "job.yaml").student.args)
    from examples.image.data import splits

    train = len(splits(args.size, args.seed)[0])
    events: list[Mapping[str, Any]] = list(read_events(folder / "events.jsonl"))
    return throughput(events, recipe.BATCH, train // recipe.BATCH * recipe.BATCH)


def draw(found: Throughput, path: Path) -> None:
    """Images per second over time, with the workers that came and went (PNG)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    words = {"killed": "killed (kill -9)", "restarted": "started again", "joined": "joins"}
    with pyplot.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = pyplot.subplots(figsize=(10, 4), layout="constrained")
        try:
            top = 1.6 * max(found.samples_per_s, default=1.0)
            axes.fill_between(found.times_s, found.samples_per_s, color="#6b7a8f", alpha=0.2)
            axes.plot(found.times_s, found.samples_per_s, color="#6b7a8f")
            for number, change in enumerate(found.changes):
                colour = "#2a9d6f" if change.gained > 0 else "#c0392b"
                axes.axvline(change.time_s, color=colour, linestyle="--", linewidth=1)
                text = f" {change.worker} {words.get(change.what, change.what)}"
                place = top * (0.97 - 0.07 * (number % 5))
                axes.text(change.time_s, place, text, color=colour, va="top", parse_math=False)
            axes.set_ylim(0, top)
            axes.set_xlim(0, max(found.times_s, default=1.0))
            axes.set_xlabel("seconds of training")
            axes.set_ylabel("images/s, labelled and trained on")
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=90)
        finally:
            pyplot.close(figure)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(LEAVE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
