"""One trial that runs: a job's student nodes and its record, on a fleet that is there."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from edldist.clock import Clock
from edldist.config import JobConfig
from edldist.wire.messages import Report, Status
from edldist_launch.contract.backend import ProcessState
from edldist_launch.job.nodes import StudentNodes
from edldist_launch.job.stopped import Stopped
from edldist_launch.local.child import Child
from edldist_launch.local.last_words import own_error
from edldist_launch.plan.plan import Plan
from edldist_launch.record.earlier import Beginning, read_result
from edldist_launch.record.eventfile import read_events
from edldist_launch.record.folder import JobFolder
from edldist_launch.record.tally import Figures
from edldist_launch.tune.hopeless import Curves
from edldist_launch.tune.journal import Trial
from edldist_launch.tune.sharing import share_of_job
from edldist_launch.view.console import PlainConsole
from edldist_launch.view.observers import Observers

__all__ = ["RunningTrial", "TrialLog", "curves_of", "failure"]

LAST_REPORTS_S = 10.0
"""How long the last figures of a script that has ended are waited for, if its coordinator does not answer."""
MANY_RECORDS = 1_000
BY_THE_JOB = ("samples_per_s",)
"""What the record of a job says that no script need report."""
_POSITIONS = ("step", "steps", "epoch", "epochs")


class TrialLog:
    """Where a trial is shown: its lines go to ``run.log``, its figures to whoever asks."""

    def __init__(self, console: PlainConsole) -> None:
        self._console = console
        self.workers_wanted = 0
        self.figures = Figures()

    def __enter__(self) -> TrialLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def say(self, text: str, style: str = "") -> None:
        """One line."""
        self._console.print(text, soft_wrap=True)

    def update(self, figures: Figures, phase: str, elapsed_s: float) -> None:
        """Keep the figures."""
        self.figures = figures


def curves_of(folder: Path) -> Curves:
    """What a trial has reported so far, by its record; nothing where there is none."""
    curves = Curves()
    with contextlib.suppress(OSError):
        for event in read_events(folder / "events.jsonl"):
            if event["event"] == "report" and event.get("rank") == 0:
                _note(curves, event)
    return curves


def _note(curves: Curves, values: Mapping[str, Any]) -> None:
    step = values.get("step")
    at = int(step) if isinstance(step, int | float) and math.isfinite(step) else curves.step
    # JSON has no "not a number": the record says null.
    figures = {key: math.nan if value is None else value for key, value in values.items()}
    curves.add(at, {key: figures[key] for key in figures if key not in (*_POSITIONS, "t", "event", "rank")})


class RunningTrial:
    """One trial's processes and record. Main thread only.

    Args:
        trial: which.
        job: its job.
        beside: the folder of the job file.
        root: the folder of the tuning.
        environment: of every process.
        address: of the coordinator.
        beginning: what becomes of what an earlier process left of it.

    Attributes:
        curves: what it has reported.
        resumed: whether an earlier process had begun it.

    Raises:
        ConfigError: its folder is held by another process, or cannot be written.
    """

    def __init__(
        self,
        trial: Trial,
        job: JobConfig,
        beside: Path,
        root: Path,
        environment: Mapping[str, str],
        address: str,
        clock: Clock,
        beginning: Beginning = "resume",
    ) -> None:
        self.trial = trial
        self.job = job
        self._clock = clock
        path = root / trial.folder
        self.resumed = beginning == "resume" and (path / "events.jsonl").exists()
        self.folder = JobFolder(path, job, beginning)
        self.curves = curves_of(path)
        self._log: IO[str] = (path / "run.log").open("a", encoding="utf-8")
        console = PlainConsole(file=self._log, width=120)
        self._view = TrialLog(console)
        self._observers = Observers(job.name, self.folder, console, 0, clock, self._view, self._log)
        self._students = StudentNodes(
            Plan(job, beside, self.folder.path), self.folder, environment, self._observers, address
        )
        self._began = clock.monotonic()
        self._settled_at: float | None = None
        self._quiet = False
        self._asked = False
        self.stopped_for = ""
        """Why it was asked to end before its time; empty if it was not, or had come as far as it should."""

    @property
    def figures(self) -> Figures:
        """Of this moment."""
        return self._view.figures

    @property
    def children(self) -> list[Child]:
        return self._students.children

    @property
    def processes(self) -> tuple[ProcessState, ...]:
        """Its nodes as the launch contract tells them."""
        return self._students.role({}).processes

    @property
    def finished_before(self) -> bool:
        """Whether an earlier process saw it to its end, and could not write that down any more."""
        return self.folder.finished is not None

    def start(self) -> None:
        """Start its students."""
        self._began = self._clock.monotonic()
        self._observers.event("job_started", job=self.job.name, trial=self.trial.number)
        self._students.start(self._began)

    def take(self, status: Status) -> None:
        """Write down what an answer of the coordinator says of this trial."""
        share = share_of_job(status, self.job.name)
        own = [record for record in share.records if isinstance(record, Report) and record.rank == 0]
        for record in own:
            _note(self.curves, record.values)
        more = len(status.records) >= MANY_RECORDS  # there may be a further page of them
        self._quiet = self._settled_at is not None and not own and not more
        self._observers.take(share, stopping=self._asked)

    def tick(self, now: float) -> bool:
        """Look after the students; True once they have ended and all that they reported is here.

        Raises:
            Stopped: the script failed.
        """
        if self._settled_at is None:
            try:
                self._students.tick(now)
            except Stopped as stop:
                if not (self._asked and stop.status == "interrupted"):
                    raise
            if self._students.settled:
                self._settled_at = now
            return False
        return self._quiet or now > self._settled_at + LAST_REPORTS_S

    def ask_to_end(self, now: float, why: str = "") -> None:
        """Have the students save and leave: what they have reported is what counts.

        Args:
            why: it has no hope; empty if it has come as far as it should.
        """
        if not self._asked:
            self._asked, self.stopped_for = True, why
            self._students.want(0, now)

    @property
    def asked(self) -> bool:
        return self._asked

    @property
    def came_to_its_end(self) -> bool:
        """Whether its script has ended by itself, though it may have been asked to meanwhile."""
        return bool(self.children) and self._students.done

    def finish(self, status: str, reason: str = "", child: Child | None = None) -> None:
        """Write its result, and let go of its folder. Its processes have ended.

        Args:
            child: whose last words say more.
        """
        words = child.output() if child is not None else ""
        self._observers.finish(status, reason, self._clock.monotonic() - self._began, words)
        self.close()

    def close(self) -> None:
        """Let go of its folder and its log."""
        self.folder.close()
        self._log.close()

    def figures_at(self, step: float) -> dict[str, float]:
        """All that it has reported until a step, and what its record says besides."""
        reported = self.curves.last(step)
        result = read_result(self.folder.path / "result.json") or {}
        for name in BY_THE_JOB:
            value = result.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                reported.setdefault(name, float(value))
        return reported


def failure(stop: Stopped) -> str:
    """Why a script failed, with its own last words."""
    said = own_error(stop.child.output()) if stop.child is not None else ""
    return ": ".join(part for part in (str(stop), said) if part)
