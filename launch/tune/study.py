"""Which trial runs next, and what all of them amount to. Pure: it starts nothing and reads no clock.

A tuning is a row of *windows*. A window is made when there is room for a trial and none is planned: some
controls (the job's own settings) and some candidates, proposed out of all trials that have ended by then,
whichever window they belong to; others are under way, and their figures come later. ::

    planned --start--> running --+-- its script came to its end --------> done
                          ^      +-- without hope beside the others ----> stopped
                          |      +-- the script failed, figures missing -> failed
      the tuning went on -+
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from edldist_launch.tune.journal import Trial
from edldist_launch.tune.ratios import Verdict, check_control, control_of, judge
from edldist_launch.tune.search import Search, Seen
from edldist_launch.tune.space import Space

__all__ = ["Study"]


class Study:
    """The trials of one tuning, and those to come.

    Args:
        space: what may be tried.
        base: the control's settings.
        candidates: how many to try in all; controls come on top.
        trials: those of an earlier process. Those that were under way then are due first.
        seed_of: the number that the trials of a window share.
        search: what proposes and recommends; None for ``Search`` itself.
    """

    def __init__(
        self,
        space: Space,
        base: Mapping[str, Any],
        candidates: int,
        trials: Sequence[Trial] = (),
        seed_of: Callable[[int], int | None] = lambda window: None,
        search: Search | None = None,
    ) -> None:
        self.space = space
        self.candidates = candidates
        self._base = dict(base)
        self._seed_of = seed_of
        self._search = search or Search(space, base)
        # Invariant: the trial of number n is at place n.
        self.trials = list(trials)
        self._to_resume = [trial.number for trial in trials if trial.state == "running"]

    @property
    def running(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state == "running"]

    @property
    def over(self) -> bool:
        """Whether every candidate has ended, and every control."""
        return self._proposed >= self.candidates and all(trial.ended for trial in self.trials)

    def next(self) -> Trial | None:
        """The trial to start now, which counts as running from here on; None if there is none to start.

        Call it as long as there is room. Whoever calls writes down the trials before any of them starts.
        """
        if self._to_resume:
            return self.trials[self._to_resume.pop(0)]
        if not any(trial.state == "planned" for trial in self.trials) and self._proposed < self.candidates:
            self._open_window()
        for trial in self.trials:
            if trial.state == "planned":
                return self._replace(trial, state="running")
        return None

    def ended(
        self, number: int, metrics: Mapping[str, float], reported: Mapping[str, object], steps: int
    ) -> Trial:
        """A trial came to its end.

        Args:
            metrics: the finite numbers among what it reported last.
            reported: all of it.

        Raises:
            ConfigError: it is a control, and no ratio to it would say anything.
        """
        trial = self.trials[number]
        if trial.control:
            check_control(self.space, metrics, reported)
        missing = [name for name in self.space.metrics if name not in metrics]
        if missing:
            name = missing[0]
            reason = (
                f"it reported {name} {reported[name]!r}" if name in reported else f"it never reported {name}"
            )
            return self.failed(number, reason, metrics, steps)
        return self._replace(trial, state="done", metrics=dict(metrics), steps=steps)

    def stopped(
        self, number: int, metrics: Mapping[str, float], beside: Mapping[str, float], steps: int, reason: str
    ) -> Trial:
        """A trial without hope was ended early.

        Args:
            metrics: what it had reached.
            beside: what its control had reached at the same step.
        """
        return self._replace(
            self.trials[number],
            state="stopped",
            metrics=dict(metrics),
            beside=dict(beside),
            steps=steps,
            reason=reason,
        )

    def failed(
        self, number: int, reason: str, metrics: Mapping[str, float] | None = None, steps: int = 0
    ) -> Trial:
        """A candidate has no figures that count: it is taken for as bad as the worst."""
        return self._replace(
            self.trials[number], state="failed", metrics=dict(metrics or {}), steps=steps, reason=reason
        )

    # --- what came out --------------------------------------------------------------------------

    def control(self, window: int) -> dict[str, float] | None:
        """The control's metrics in a window; None before it is done."""
        return control_of(window, self.trials, self.space.metrics)

    def verdict(self, trial: Trial) -> Verdict:
        """A trial beside the control of its window."""
        return judge(self.space, trial, self.control(trial.window))

    def best(self) -> Trial | None:
        """The candidate that is recommended, if any holds the constraints."""
        numbers, seen = self._seen()
        place = self._search.recommend(seen)
        return None if place is None else self.trials[numbers[place]]

    def estimates(self, values: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, Any]] | None:
        """What the models make of some settings (see ``Search.estimates``)."""
        return self._search.estimates(self._seen()[1], values)

    # --- what those are made of -----------------------------------------------------------------

    @property
    def _proposed(self) -> int:
        return sum(not trial.control for trial in self.trials)

    def _open_window(self) -> None:
        window = max((trial.window for trial in self.trials), default=-1) + 1
        count = min(self.space.window, self.candidates - self._proposed)
        proposed = self._search.propose(self._seen()[1], count, window)
        settings = [(True, self._base)] * self.space.controls + [(False, each) for each in proposed]
        for control, values in settings:
            self.trials.append(
                Trial(
                    number=len(self.trials),
                    window=window,
                    control=control,
                    values=dict(values),
                    seed=self._seed_of(window),
                )
            )

    def _seen(self) -> tuple[list[int], list[Seen]]:
        """The candidates that have ended and can be compared, and their numbers."""
        numbers, seen = [], []
        for trial in self.trials:
            if trial.control or not trial.ended:
                continue
            verdict = self.verdict(trial)
            if trial.state == "failed" or (verdict.known and not math.isnan(verdict.gain)):
                numbers.append(trial.number)
                ratios = {} if trial.state == "failed" else verdict.ratios
                seen.append(Seen(trial.values, ratios, trial.state == "done", trial.window))
        return numbers, seen

    def _replace(self, trial: Trial, **changes: Any) -> Trial:
        self.trials[trial.number] = changed = msgspec.structs.replace(trial, **changes)
        return changed
