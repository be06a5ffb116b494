"""What trials of a tuning have reported on their way, and whether one that runs still has a chance."""

from __future__ import annotations

from pathlib import Path

from edldist_launch.tune.hopeless import Curves, Past, hopeless
from edldist_launch.tune.journal import Trial
from edldist_launch.tune.study import Study
from edldist_launch.tune.trial_run import RunningTrial, curves_of

__all__ = ["Prospects"]


class Prospects:
    """The curves of all trials: of those that this process ran, and of earlier ones by their records.

    Args:
        folder: of the tuning.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        self._study = study
        self._folder = folder
        self._curves: dict[int, Curves] = {}
        self._past: list[Past] | None = None  # None: another trial has ended since it was made

    def ended(self, run: RunningTrial) -> None:
        """A trial has ended, and the study knows it."""
        self._curves[run.trial.number] = run.curves
        self._past = None

    def control(self, window: int) -> Curves | None:
        """Those of a window's first control, once it is done."""
        for trial in self._study.trials:
            if trial.control and trial.window == window:
                return self._of(trial) if trial.state == "done" else None
        return None

    def ratio(self, run: RunningTrial) -> float | None:
        """The objective of a trial that runs to the control's at the same step; None if that is not known."""
        name, step = self._study.space.objective.metric, run.curves.step
        value, control = run.curves.at(name), self.control(run.trial.window)
        other = control.at(name, step) if control is not None else None
        return value / other if value is not None and other else None

    def against(self, run: RunningTrial) -> str:
        """Why a trial need not go on; empty if it should."""
        control = self.control(run.trial.window)
        if not self._study.space.stop or run.trial.control or control is None:
            return ""
        if self._past is None:
            self._past = self._came_through()
        return hopeless(self._study.space, run.curves, control, self._past)

    def _came_through(self) -> list[Past]:
        past = []
        for trial in self._study.trials:
            verdict, control = self._study.verdict(trial), self.control(trial.window)
            if not trial.control and trial.state == "done" and verdict.known and control is not None:
                past.append(Past(self._of(trial), control, verdict.gain))
        return past

    def _of(self, trial: Trial) -> Curves:
        if trial.number not in self._curves:
            self._curves[trial.number] = curves_of(self._folder / trial.folder)
        return self._curves[trial.number]
