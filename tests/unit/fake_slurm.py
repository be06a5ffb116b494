"""A Slurm without a cluster: it queues what it is given, and a test moves the jobs on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edldist.errors import LaunchError
from edldist_launch.slurm.queued import QueuedTask

__all__ = ["FakeSlurm"]


class FakeSlurm:
    """By the protocol ``launch.slurm.commands.Slurm``.

    Attributes:
        submitted: each script's path and options, in order.
        refuses: script names that are refused, with Slurm's words.
        silent: calls that are not answered, by name.
        asked, cancelled: engine ids, in order.
    """

    def __init__(self) -> None:
        self.tasks: dict[str, QueuedTask] = {}
        self.held: set[str] = set()
        self.submitted: list[tuple[Path, tuple[str, ...]]] = []
        self.refuses: dict[str, str] = {}
        self.silent: set[str] = set()
        self.asked: list[str] = []
        self.cancelled: list[str] = []
        self.released: list[str] = []
        self._number = 0

    # --- what is asked of a cluster -------------------------------------------------------------------

    def submit(self, script: Path, *options: str) -> str:
        self._answer("submit")
        if script.stem in self.refuses:
            raise LaunchError(f"sbatch: {self.refuses[script.stem]}")
        text = script.read_text()
        name = next(line for line in text.splitlines() if line.startswith("#SBATCH --job-name="))
        self.submitted.append((script, options))
        self._number += 1
        number = str(self._number)
        given = dict(option.partition("=")[::2] for option in options)
        reason = "JobHeldUser" if "--hold" in given else "Dependency"
        if "--hold" in given:
            self.held.add(number)
        for index in self._indices(given.get("--array")):
            engine_id = number if index is None else f"{number}_{index}"
            self.tasks[engine_id] = QueuedTask(
                engine_id, name.partition("=")[2], index, "PENDING", reason=reason
            )
        return number

    def try_out(self, script: Path, *options: str) -> str:
        self._answer("try_out")
        if script.stem in self.refuses:
            raise LaunchError(f"sbatch: {self.refuses[script.stem]}")
        return f"to start soon {' '.join(options)}"

    def queue(self, names: Sequence[str]) -> list[QueuedTask]:
        self._answer("queue")
        return [task for task in self.tasks.values() if task.queue_name in names]

    def release(self, engine_id: str) -> None:
        self._answer("release")
        self.held.remove(engine_id)
        self.released.append(engine_id)

    def ask(self, engine_ids: Sequence[str]) -> None:
        self._answer("ask")
        self.asked += engine_ids

    def cancel(self, engine_ids: Sequence[str]) -> None:
        self._answer("cancel")
        self.cancelled += engine_ids
        for engine_id in engine_ids:
            self.tasks.pop(engine_id, None)

    # --- what a test does -----------------------------------------------------------------------------

    def run(self, *engine_ids: str, where: str = "n1") -> None:
        """These jobs have started."""
        for engine_id in engine_ids:
            self.tasks[engine_id] = replace(self.tasks[engine_id], state="RUNNING", where=where, reason="")

    def requeue(self, engine_id: str) -> None:
        """Slurm took this job back."""
        task = self.tasks[engine_id]
        self.tasks[engine_id] = replace(task, state="PENDING", where="", reason="BeginTime")

    def end(self, *engine_ids: str) -> None:
        """These jobs have ended."""
        for engine_id in engine_ids:
            del self.tasks[engine_id]

    def _answer(self, call: str) -> None:
        if call in self.silent:
            raise LaunchError(f"{call}: Unable to contact slurm controller (connect failure)")

    @staticmethod
    def _indices(array: str | None) -> list[int | None]:
        if array is None:
            return [None]
        found: list[int | None] = []
        for part in array.split(","):
            first, dash, last = part.partition("-")
            found += range(int(first), int(last if dash else first) + 1)
        return found
