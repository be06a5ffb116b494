"""How a tuning stands: in its journal, which has to be right, and in its report, picture and view."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence

from edldist.files import replace_file
from edldist.observe.printable import printable
from edldist_launch.tune.folder import TuningFolder
from edldist_launch.tune.journal import Kept, Trial
from edldist_launch.tune.picture import draw_tuning
from edldist_launch.tune.report import Standing, better, conclusion, counted, markdown, named, told
from edldist_launch.tune.settings import Settings
from edldist_launch.tune.space import deciding_space
from edldist_launch.tune.study import Study
from edldist_launch.tune.view import Running, TuneView, show_end
from edldist_launch.view.console import PlainConsole, near
from edldist_launch.view.observers import Observers

__all__ = ["Account"]

logger = logging.getLogger(__name__)

PLACES = ("tune.json", "report.md", "tune.png", "trials", "logs")


class Account:
    """Writes and shows how a tuning stands. Main thread only.

    The journal decides what a later process goes on from, so an error of it is raised. Everything else only
    watches: an error of it is said once, and the tuning goes on.

    Args:
        job: its name.
        words: which job it is, as a person would type it.
        observers: of the fleet.
    """

    def __init__(
        self,
        study: Study,
        settings: Settings,
        folder: TuningFolder,
        job: str,
        words: Sequence[str],
        console: PlainConsole,
        view: TuneView,
        observers: Observers,
    ) -> None:
        self._study = study
        self._settings = settings
        self._folder = folder
        self._job = job
        self._words = words
        self._console = console
        self._view = view
        self._observers = observers
        self._standing = Standing()
        self._said: set[str] = set()

    def begin(self) -> None:
        """Say what an earlier process left."""
        self._observers.say(f"output: {near(self._folder.path)}")
        if self._study.trials and not self._study.over:
            ended = sum(trial.ended for trial in self._study.trials)
            under_way = len(self._study.running)
            self._observers.say(f"going on: {ended} trials have ended, {under_way} were under way")
            self._standing = Standing.of(self._study)

    def write(self, status: str = "running", reason: str = "") -> None:
        """Write the journal.

        Raises:
            LaunchError: the disk does not take it.
        """
        best, estimate = self._standing.best, self._standing.estimate
        for_readers = {
            "status": status,
            **({"reason": reason} if reason else {}),
            "candidates": self._study.candidates,
            "better": better(self._study, self._standing),
            "best": None if best is None else best.number,
            "best_values": None if best is None else dict(best.values),
            "estimate": None if estimate is None else list(estimate),
        }
        verdicts = [self._study.verdict(trial) for trial in self._study.trials]
        by_trial: list[Mapping[str, object]] = [
            {"ratios": dict(each.ratios), "feasible": each.feasible, "gain": each.gain} for each in verdicts
        ]
        kept = Kept(
            job=self._job,
            digest=self._folder.digest,
            space=deciding_space(self._study.space),
            trials=self._study.trials,
        )
        self._folder.journal.write(kept, for_readers, by_trial)

    def ended(self, trial: Trial) -> None:
        """A trial has ended: write it down, and say what it came to.

        Raises:
            LaunchError: the disk does not take it.
        """
        self._standing = Standing.of(self._study)
        self.write()
        self._observers.event("trial_ended", trial=trial.number, state=trial.state, reason=trial.reason)
        self._observers.say(told(self._study, trial), "yellow" if trial.state == "failed" else "")
        if all(each.ended for each in self._study.trials if each.window == trial.window):
            self._report("running")

    def started(self, trial: Trial, resumed: bool) -> None:
        """A trial starts, or goes on."""
        self._observers.event("trial_started", trial=trial.number, control=trial.control, resumed=resumed)
        if resumed:
            self._observers.say(f"{named(trial)} goes on")

    def show(self, running: Sequence[Running], elapsed_s: float, stopping: bool) -> None:
        """Show how it stands now."""
        try:
            self._view.show(self._study, running, self._standing, elapsed_s, stopping)
        except Exception as exc:
            self._failed("the view", exc)

    def came_to(self, status: str, reason: str = "") -> str:
        """How it ended, in words for those who ask later."""
        if status == "completed":
            return f"{counted(self._study)}. {conclusion(self._study, self._standing)}"
        return f"interrupted: {_with_way_on(reason)}" if status == "interrupted" else reason

    def close(self, status: str, reason: str = "") -> None:
        """Write the journal, the report and the picture, and show how it ended.

        Raises:
            LaunchError: the disk does not take the journal.
        """
        self._standing = Standing.of(self._study)
        self.write(status, reason)
        self._report(status)
        self._observers.event(f"tuning_{status}", **({"reason": reason} if reason else {}))
        show_end(self._console, self._study, self._standing, self._command())
        names = [name for name in PLACES if (self._folder.path / name).exists()]
        self._console.print(f"in {near(self._folder.path)}: {', '.join(names)}", soft_wrap=True)
        if status == "interrupted":
            reason = _with_way_on(reason)
        if reason:
            word = "interrupted" if status == "interrupted" else "error"
            print(printable(f"{word}: {reason}"), file=sys.stderr)

    def _command(self) -> str:
        """What runs the job with the recommended settings; empty where none are better than its own."""
        best = self._standing.best
        if best is None or not better(self._study, self._standing):
            return ""
        return self._settings.command(self._words, best.values)

    def _report(self, status: str) -> None:
        try:
            text = markdown(self._study, self._standing, self._job, self._command())
            replace_file(self._folder.path / "report.md", text.encode())
            picture = self._folder.path / "tune.png"
            draw_tuning(self._study, self._standing, picture, f"tuning of {self._job} ({status})")
        except Exception as exc:
            self._failed("the report", exc)

    def _failed(self, what: str, exc: Exception) -> None:
        if what not in self._said:
            self._said.add(what)
            logger.warning("%s failed (%s), the tuning itself goes on", what, exc, exc_info=exc)


def _with_way_on(reason: str) -> str:
    go_on = "the same command goes on, with the trials that were under way"
    return "; ".join(part for part in (reason, go_on) if part)
