"""All that watches a job: its figures, its record and its display. Nothing here decides.

A run must neither fail nor end because somebody looks at it: a disk fills up, a terminal goes away, a member
sends an event that makes no sense. So ``JobRun`` talks to its observers through this class alone, and every
method of it that can be called from outside is ``harmless``: what it raises is said once, counted, and not
passed on.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Concatenate, ParamSpec, TypeVar

from edldist.clock import Clock
from edldist.config import JobConfig
from edldist.errors import EdlDistError
from edldist.observe.event_words import describe_event
from edldist.observe.printable import printable
from edldist.wire.messages import GroupStatus, Status
from edldist.wire.query import StatusClient
from edldist_launch.record.environment import environment
from edldist_launch.record.eventfile import json_text
from edldist_launch.record.folder import RecordFolder
from edldist_launch.record.memory import Memory
from edldist_launch.record.tally import Tally
from edldist_launch.track.feed import TrackerFeed
from edldist_launch.view.console import PlainConsole, near
from edldist_launch.view.curves import draw_curves
from edldist_launch.view.progress import Doing, ProgressView, View, show_result, why_it_ended
from edldist_launch.view.report.writing import REPORT, write_report

__all__ = ["Observers", "harmless"]

logger = logging.getLogger(__name__)

PROGRESS_EVENT_EVERY_S = 1.0
KEEP_EVERY_S = 10.0
"""How old figures are that a successor finds, at most; those of a student that has gone are there at once."""
RECORDS = ("result.json", "events.jsonl", "history.json", REPORT)
RESULT_TRIES = 5
RESULT_WAIT_S = 0.5

P = ParamSpec("P")
T = TypeVar("T")


def harmless(method: Callable[Concatenate[Observers, P], T]) -> Callable[Concatenate[Observers, P], T | None]:
    """A method that returns None instead of raising, and says the first time what went wrong."""

    def guarded(self: Observers, /, *args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return method(self, *args, **kwargs)
        except Exception as exc:
            self.failures += 1
            if method.__name__ not in self._said:
                self._said.add(method.__name__)
                with contextlib.suppress(Exception):
                    logger.warning(
                        "watching this job failed (%s), the job itself goes on", method.__name__, exc_info=exc
                    )
            return None

    functools.update_wrapper(guarded, method)
    return guarded


class Observers:
    """Watches one run of one job; a context manager that shows the live view. Main thread only.

    Args:
        job: its name.
        folder: where the record goes.
        console: where a person looks.
        workers_wanted: teacher workers that the job asks for.
        clock: tells the time.
        view: shows figures and lines; None for a live view on the console.
        errors: where last words go; None for standard error.
        trackers: where figures go beside the record; None for nowhere.
        doing: what the job does while all is well.
        kept: tells the labels that the job's store holds, for the result; None: it is not asked.

    Attributes:
        failures: calls that raised, and were kept from the job.
    """

    def __init__(
        self,
        job: str,
        folder: RecordFolder,
        console: PlainConsole,
        workers_wanted: int,
        clock: Clock,
        view: View | None = None,
        errors: IO[str] | None = None,
        trackers: TrackerFeed | None = None,
        doing: Doing = "training",
        kept: Callable[[], list[dict[str, Any]]] | None = None,
    ) -> None:
        self._job = job
        self._folder = folder
        self._console = console
        self._clock = clock
        self._began = clock.monotonic()
        self._tally = Tally()
        self._view: View = view or ProgressView(console, job, workers_wanted, doing)
        self._doing: Doing = doing
        self._kept = kept
        self._errors = errors
        self._trackers = trackers
        self._next_progress = 0.0
        self._submission: str | None = None  # whose figures are kept for a successor
        self._next_keep = 0.0
        self._said: set[str] = set()
        self.failures = 0

    def __enter__(self) -> Observers:
        self._open_view()
        return self

    def __exit__(self, *raised: object) -> None:
        self._close_view()

    @harmless
    def _open_view(self) -> None:
        self._view.__enter__()

    @harmless
    def _close_view(self) -> None:
        self._view.__exit__(None, None, None)

    @harmless
    def event(self, name: str, /, **fields: Any) -> None:
        """Write down something that happened."""
        line = {"t": self._clock.wall(), "event": name, **fields}
        self._folder.event(line)
        self._track(line)

    @harmless
    def take_over(self, submission: str) -> None:
        """Go on with the figures that a predecessor kept of this very submission, and keep them for the next.

        To be called before anything is looked at, by whoever may be replaced while the job goes on.
        """
        self._submission = submission
        memory = self._folder.kept()
        if memory is not None and memory.submission == submission:
            wall = self._clock.wall()
            self._tally.recall(memory.tally, self._now() - max(0.0, wall - memory.kept_at))
            self._began = self._now() - max(0.0, wall - memory.began)

    @harmless
    def hand_over(self) -> None:
        """Keep the figures as they are now: this one leaves, and another one goes on with them."""
        self._keep()

    @harmless
    def environment(self) -> None:
        """Write down with what versions, and on what machine, this run is watched."""
        self.event("environment", **environment())

    @harmless
    def job(self, job: JobConfig) -> None:
        """Write down the job as it is known now."""
        self._folder.write_job(job)

    @harmless
    def say(self, text: str, style: str = "") -> None:
        """Tell the person one line."""
        self._view.say(text, style)

    @harmless
    def echo(self, output: bytes) -> None:
        """Show what a program of the user's own printed; its bars of progress move, but it does no more."""
        if self._console.quiet:
            return
        lines = output.decode(errors="replace").split("\r")
        self._console.file.write("\r".join(map(printable, lines)))
        self._console.file.flush()

    @harmless
    def look(self, client: StatusClient | None, timeout_s: float, stopping: bool) -> None:
        """Ask the coordinator, write down what is new, and show the figures of now."""
        status = None
        if client is not None:
            with contextlib.suppress(EdlDistError):
                status = client.query(self._tally.since, timeout_s)
        self.take(status, stopping)

    @harmless
    def take(self, status: Status | None, stopping: bool) -> None:
        """Write down what is new in an answer, if there is one, and show the figures of now."""
        if status is not None:
            self._take(status)
        self._show(status is not None, stopping)

    @harmless
    def joined(self) -> set[str]:
        """Ids of the members that are present, as far as known."""
        return self._tally.joined_ids

    @harmless
    def wanted(self) -> set[str]:
        """Teacher groups that students want and that are not there."""
        return self._tally.wanted

    @harmless
    def groups(self) -> tuple[str, list[GroupStatus]] | None:
        """The coordinator's incarnation, and the teacher groups as it told them last; None before."""
        tally = self._tally
        return None if tally.incarnation is None else (tally.incarnation, tally.groups)

    @harmless
    def workers_wanted(self, count: int) -> None:
        """So many teacher workers there should be now."""
        self._view.workers_wanted = count

    @harmless
    def crashed(self, member_id: str) -> None:
        """The launcher saw a teacher worker die; the coordinator may be too young to have known it."""
        self._tally.crashed(member_id)

    @harmless
    def students_done(self) -> None:
        """From now on teachers leave because the job ends them."""
        self._tally.freeze()

    @harmless
    def students_back(self) -> None:
        """From now on they leave for other reasons."""
        self._tally.thaw()

    @harmless
    def checkpoint(self) -> int | None:
        """The step of the last checkpoint of this run that is known to be whole."""
        saved = self._folder.last_checkpoint()
        return saved if saved is not None else self._tally.checkpoint  # a script may save elsewhere

    @harmless
    def result(self, status: str, trained_s: float, reason: str = "") -> None:
        """Write the result as it is so far."""
        self._write_result(self._result(status, trained_s, reason) or {"status": status, "job": self._job})

    @harmless
    def finish(self, status: str, reason: str, trained_s: float, last_words: str = "") -> None:
        """Write the result, the last event and the plot, and show how it ended.

        Args:
            status: completed, failed or interrupted.
            reason: why, unless completed.
            trained_s: how long students ran.
            last_words: what the child that failed said at its end.
        """
        result = self._result(status, trained_s, reason) or {"status": status, "job": self._job}
        self.event(f"job_{status}", **({"reason": reason} if reason else {}))
        self._write_result(result)
        self._folder.forget_kept()
        self._end_trackers(status)
        self._draw(status)
        self._report()
        if last_words:
            print(printable(last_words), file=self._errors or sys.stderr)
        self._show_result(result)
        self._show_places()
        if words := why_it_ended(result):
            print(printable(words), file=self._errors or sys.stderr)

    @harmless
    def leave_off(self, trained_s: float) -> None:
        """Watch no longer, though the job may go on: another one will, or nobody."""
        self.event("coordinator_stopped")
        self._keep()
        self._write_result(self._result("interrupted", trained_s) or {"status": "interrupted"})
        self._end_trackers("interrupted")
        self._draw("so far")
        self._report()

    # --- what those are made of: each part fails alone --------------------------------------

    @harmless
    def _take(self, status: Status) -> None:
        gone = False
        for line in self._tally.observe(status, self._now()):
            self._record(line)
            gone = gone or line["event"] in ("student_left", "student_lost")
        if gone or self._now() >= self._next_keep:
            self._keep()

    @harmless
    def _keep(self) -> None:
        if self._submission is None:
            return
        self._next_keep = self._now() + KEEP_EVERY_S
        now, wall = self._now(), self._clock.wall()
        tally = self._tally.memory(now)
        self._folder.keep(Memory(self._submission, wall - (now - self._began), wall, tally))

    @harmless
    def _record(self, line: dict[str, Any]) -> None:
        self._folder.event(line)
        self._track(line)
        if (words := describe_event(line)) is not None:
            self.say(words, "yellow" if str(line["event"]).endswith("_lost") else "")

    @harmless
    def _track(self, line: dict[str, Any]) -> None:
        if self._trackers is not None:
            self._trackers.take(line)

    @harmless
    def _end_trackers(self, status: str) -> None:
        if self._trackers is not None:
            self._trackers.end(status, self._tally.metrics)

    @harmless
    def _show(self, answered: bool, stopping: bool) -> None:
        figures = self._tally.figures(self._now())
        if not answered:
            phase = "waiting for the coordinator"
        elif not figures.workers and self._view.workers_wanted:
            phase = "waiting for teachers"
        else:
            phase = self._doing if figures.step is not None else "waiting for steps"
        elapsed_s = self._now() - self._began
        if figures.step is not None and not self._tally.frozen and elapsed_s >= self._next_progress:
            # Ten minutes a second apart, then every ten seconds: a long job's file stays small.
            self._next_progress = elapsed_s + PROGRESS_EVENT_EVERY_S * (1 if elapsed_s < 600 else 10)
            self.event(
                "progress",
                step=figures.step,
                samples_per_s=round(figures.samples_per_s, 2),
                workers=figures.workers,
                buffered=figures.buffered,
                starved_s=round(figures.starved_s, 3),
                skipped_samples=figures.skipped_samples,
            )
        self._view.update(figures, "stopping" if stopping else phase, elapsed_s)

    @harmless
    def _result(self, status: str, trained_s: float, reason: str = "") -> dict[str, Any]:
        figures = self._tally.result(trained_s)
        return {
            "status": status,
            "job": self._job,
            **({"reason": reason} if reason else {}),
            **{key: figures.pop(key) for key in ("steps", "epochs", "samples")},
            "wall_s": round(self._now() - self._began, 3),
            **figures,
            **({"labels": labels} if (labels := self._labels()) is not None else {}),
        }

    @harmless
    def _labels(self) -> list[dict[str, Any]] | None:
        return None if self._kept is None else self._kept()

    @harmless
    def _write_result(self, result: dict[str, Any]) -> None:
        """Write ``result.json``; where the disk does not take it, its content goes to standard error."""
        for rest in reversed(range(RESULT_TRIES)):
            try:
                self._folder.result(result)
                return
            except OSError as exc:
                if not rest:
                    logger.error("cannot write result.json (%s); it would say:", exc)
                    print(printable(json_text(result)), file=sys.stderr)
                    return
                time.sleep(RESULT_WAIT_S)

    @harmless
    def _draw(self, status: str) -> None:
        picture = self._folder.path / "curves.png"
        try:
            draw_curves(self._folder.events_path, picture, f"{self._job} ({status})")
        except OSError as exc:
            logger.warning("cannot write %s (%s)", picture, exc.strerror or exc)

    @harmless
    def _report(self) -> None:
        try:
            write_report(self._folder.path)
        except OSError as exc:
            logger.warning("cannot write %s (%s)", self._folder.path / REPORT, exc.strerror or exc)

    @harmless
    def _show_result(self, result: dict[str, Any]) -> None:
        show_result(self._console, result, self._doing)

    @harmless
    def _show_places(self) -> None:
        names = [
            name
            for name in (*RECORDS, "curves.png", "logs", "checkpoints")
            if _holds_something(self._folder.path / name)
        ]
        self._console.print(f"in {near(self._folder.path)}: {', '.join(names)}", soft_wrap=True)

    def _now(self) -> float:
        return self._clock.monotonic()


def _holds_something(path: Path) -> bool:
    """A folder, or a file of which there is more than its name."""
    with contextlib.suppress(OSError):
        return path.is_dir() or path.stat().st_size > 0
    return False
