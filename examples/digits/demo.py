"""The main demo: run the digits job, kill a teacher worker, let another join, and compare the students.

It starts ``edldist run examples/digits/job.yaml`` as a person would and
follows the job's ``events.jsonl``. After a quarter of the steps it ends a teacher worker with ``kill -9``,
which the launcher then starts again; a little later it adds one with ``edldist teacher``, as anyone could.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Python puts this script's folder on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edldist.config import load_job
from edldist.observe import reporter
from edldist.observe.remarks import remark
from edldist_launch.process.tie import tied_command
from examples.digits.story import Act, Join, Kill, Say, Story

ROOT = Path(__file__).resolve().parents[2]
JOB = Path("examples/digits/job.yaml")
EDLDIST = [sys.executable, "-m", "edldist_launch"]
GUEST = "guest"
PICTURE = "comparison.png"
FOLLOW_S = 0.05
LEAVE_S = 15.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/digits"), help="default: out/digits")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of edldist run")
    args = parser.parse_args()
    if not JOB.exists():
        raise SystemExit(f"no {JOB} here: start the demo in the project's folder, {ROOT}")
    folder = args.output
    print(
        "Plenty of images, few labels. A teacher learns from 1,198 labelled digits; one small student gets\n"
        "50 labels; another gets none, but workers that run the teacher label all images for it, anew in\n"
        f"each epoch. Meanwhile one worker is killed, and one joins. Everything goes to {folder}.\n",
        flush=True,
    )
    demo = Demo(folder, args.set)
    # A terminal's Ctrl-C reaches the job itself, which saves and leaves: this process waits for it.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: demo.ask_to_stop())
    code = demo.run()
    if code != 0:
        raise SystemExit(code)
    from examples.digits.comparison import show_comparison  # after the job: importing torch takes its time

    show_comparison(folder, demo.story, PICTURE)


def completed(folder: Path) -> bool:
    """Whether a job ended here: there is nothing left to see of it."""
    with contextlib.suppress(OSError, json.JSONDecodeError):
        return bool(json.loads((folder / "result.json").read_text(encoding="utf-8"))["status"] == "completed")
    return False


class Demo:
    """The processes of the demo: the job, and the worker that joins it.

    Args:
        folder: of the job.
        settings: ``KEY=VALUE`` changes to the job, as for ``edldist run --set``.
    """

    def __init__(self, folder: Path, settings: list[str]) -> None:
        self.story = Story(GUEST)
        self._folder = folder
        self._settings = settings
        self._job: subprocess.Popen[bytes] | None = None
        self._guest: subprocess.Popen[bytes] | None = None
        # One thread for each process, on any machine: labels and weights are those of the README's table.
        self._environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def run(self) -> int:
        """Run the job to its end; its exit code."""
        options = [part for setting in self._settings for part in ("--set", setting)]
        command = [*EDLDIST, "run", str(JOB), "--output", str(self._folder), *options]
        if completed(self._folder):
            command.append("--fresh")  # keeps the former run beside it
        (self._folder / PICTURE).unlink(missing_ok=True)
        self._job = subprocess.Popen(tied_command(command, os.getpid()), env=self._environment)
        try:
            for event in follow(self._folder / "events.jsonl", self._job):
                for act in self.story.see(event):
                    self._do(act)
            return self._job.wait()
        finally:
            self._end_guest()
            reporter.flush()

    def ask_to_stop(self) -> None:
        """Let the job save and leave."""
        if self._job is not None:
            self._job.terminate()

    def _do(self, act: Act) -> None:
        if isinstance(act, Say):
            os.environ["EDLDIST_COORDINATOR"] = act.coordinator
            remark(act.text)  # the launcher shows it above its progress
        elif isinstance(act, Kill):
            with contextlib.suppress(ProcessLookupError):
                os.kill(act.pid, signal.SIGKILL)
        elif isinstance(act, Join):
            self._start_guest(act.coordinator)
        else:
            reporter.flush()  # the coordinator waits for everyone who is connected
            if self._guest is not None:
                self._guest.terminate()

    def _start_guest(self, coordinator: str) -> None:
        teacher = load_job(JOB, self._settings).teachers[0]
        command = [*EDLDIST, "teacher", "--coordinator", coordinator, "--id", GUEST]
        command += ["--model", teacher.model, "--weights", str(teacher.weights)]
        with (self._folder / "logs" / f"{GUEST}.log").open("ab") as log:
            self._guest = subprocess.Popen(
                tied_command(command, os.getpid()),
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the job
            )

    def _end_guest(self) -> None:
        if self._guest is None:
            return
        self._guest.terminate()
        try:
            self._guest.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self._guest.kill()
            self._guest.wait()


def follow(path: Path, job: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """The events of this very run, until it has ended; those of earlier runs in the file are passed over.

    The file may be there already, and may be replaced by a new one when the job begins.
    """
    file, place, rest, ours = 0, 0, b"", False
    while True:
        running = job.poll() is None
        with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
            number = os.fstat(stream.fileno()).st_ino
            if number != file:
                file, place, rest = number, 0, b""
            stream.seek(place)
            new = stream.read()
            place += len(new)
            *lines, rest = (rest + new).split(b"\n")
            for line in lines:
                with contextlib.suppress(json.JSONDecodeError):  # half a line of a run that was killed
                    event = json.loads(line)
                    ours |= event["event"] == "job_started" and event["pid"] == job.pid
                    if ours:
                        yield event
        if not running:
            return
        time.sleep(FOLLOW_S)


if __name__ == "__main__":
    main()
