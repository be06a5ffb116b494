"""What a person sees of a tuning while it runs, and at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from edldist.wording import duration, number
from edldist_launch.record.tally import Figures
from edldist_launch.tune.journal import Trial
from edldist_launch.tune.report import (
    Standing,
    best_rows,
    conclusion,
    counted,
    counts,
    named,
    row,
    shown,
    titles,
)
from edldist_launch.tune.study import Study
from edldist_launch.view.console import PlainConsole

__all__ = ["Running", "TuneView", "show_end"]

PLAIN_EVERY_S = 30.0
MOST_SHOWN = 12
"""Rows of trials that run, and of the best at the end: a terminal has so many lines to spare."""


@dataclass(frozen=True)
class Running:
    """A trial that runs, as it is shown.

    Attributes:
        ratio: of the objective to the control at the same step, if both are known.
    """

    trial: Trial
    figures: Figures
    value: float | None
    ratio: float | None


class TuneView:
    """One live view on a terminal; elsewhere a plain line every 30 s. ``say`` prints a line that stays."""

    def __init__(self, console: PlainConsole, job: str, workers_wanted: int) -> None:
        self._console = console
        self._job = job
        self.workers_wanted = workers_wanted
        self._fleet = Figures()
        self._live: Live | None = None
        self._next_line_s = 0.0

    def __enter__(self) -> TuneView:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str, style: str = "") -> None:
        """One line that stays."""
        self._console.print(text, style=style, soft_wrap=True)

    def update(self, figures: Figures, phase: str, elapsed_s: float) -> None:
        """Take the fleet's figures; they are shown with the trials."""
        self._fleet = figures

    def show(
        self, study: Study, running: Sequence[Running], standing: Standing, elapsed_s: float, stopping: bool
    ) -> None:
        """Show how it stands."""
        if self._live is not None:
            drawn = self._render(study, running, standing, elapsed_s, stopping)
            self._live.update(drawn, refresh=True)
        elif elapsed_s >= self._next_line_s:
            self._next_line_s = elapsed_s + PLAIN_EVERY_S
            self.say(self._line(study, running, standing, elapsed_s))

    def _line(self, study: Study, running: Sequence[Running], standing: Standing, elapsed_s: float) -> str:
        ended = sum(trial.ended and not trial.control for trial in study.trials)
        now = ", ".join(f"{named(each.trial)} step {_of(each.figures)}" for each in running[:4])
        more = f" and {len(running) - 4} more" if len(running) > 4 else ""
        best = ""
        if standing.best is not None:
            ratio = study.verdict(standing.best).ratios[study.space.objective.metric]
            best = f" · best {standing.best.number}, {ratio:.3f} of the control's"
        return (
            f"[{duration(elapsed_s)}] trials {ended}/{study.candidates}{best} · workers "
            f"{self._fleet.workers}/{self.workers_wanted} · running {now or 'none'}{more}"
        )

    def _render(
        self,
        study: Study,
        running: Sequence[Running],
        standing: Standing,
        elapsed_s: float,
        stopping: bool,
    ) -> RenderableType:
        ended = sum(trial.ended and not trial.control for trial in study.trials)
        left_s = elapsed_s / ended * (study.candidates - ended) if ended and not stopping else None
        phase = ("stopping", "yellow") if stopping else ("tuning", "green")
        head = Text.assemble(
            (self._job, "bold"),
            "  ",
            phase,
            f"  {duration(elapsed_s)}",
            f"  eta {duration(left_s)}" if left_s is not None else "",
        )
        number_of = counts(study)
        bar = Table.grid(padding=(0, 2, 0, 0))
        bar.add_row(
            ProgressBar(total=study.candidates, completed=min(ended, study.candidates), width=40),
            f"trials {ended}/{study.candidates}",
            f"stopped early {number_of['stopped']}",
            f"failed {number_of['failed']}",
        )
        grid = Table.grid(padding=(0, 3, 0, 0))
        grid.add_row(
            Text("workers", style="dim"),
            Text(
                f"{self._fleet.workers}/{self.workers_wanted}",
                style="" if self._fleet.workers >= self.workers_wanted else "yellow",
            ),
            Text("samples/s", style="dim"),
            f"{self._fleet.samples_per_s:.0f}",
            Text("ranks", style="dim"),
            str(self._fleet.ranks),
        )
        rows: list[RenderableType] = [head, bar, grid, self._trials(study, running)]
        if standing.best is not None:
            rows.append(Text(f"best so far: {_best(study, standing)}", no_wrap=True, overflow="ellipsis"))
        return Group(*rows)

    def _trials(self, study: Study, running: Sequence[Running]) -> RenderableType:
        objective = study.space.objective.metric
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        # Only the settings give way where a terminal is narrow.
        for title, width in (("trial", 19), ("step", 9), (objective, len(objective)), ("/ control", 9)):
            table.add_column(title, no_wrap=True, min_width=width)
        table.add_column("settings", no_wrap=True)
        for each in running[:MOST_SHOWN]:
            ratio = "-" if each.ratio is None else f"{each.ratio:.3f}"
            better = each.ratio is not None and study.space.gain(each.ratio) > 0
            table.add_row(
                named(each.trial),
                _of(each.figures),
                "-" if each.value is None else number(each.value),
                Text("" if each.trial.control else ratio, style="green" if better else ""),
                _settings(each.trial) if not each.trial.control else "",
            )
        if len(running) > MOST_SHOWN:
            table.add_row(f"and {len(running) - MOST_SHOWN} more")
        return table


def _of(figures: Figures) -> str:
    if figures.step is None:
        return "-"
    return f"{figures.step}/{figures.steps}" if figures.steps is not None else str(figures.step)


def _settings(trial: Trial) -> str:
    return "  ".join(f"{key} {shown(value)}" for key, value in trial.values.items())


def _best(study: Study, standing: Standing) -> str:
    best = standing.best
    assert best is not None
    ratio = study.verdict(best).ratios[study.space.objective.metric]
    mean = f", {standing.estimate[0]:.3f} by the model" if standing.estimate is not None else ""
    name = study.space.objective.metric
    return f"trial {best.number}, {name} {ratio:.3f} of the control's{mean}: {_settings(best)}"


def show_end(console: PlainConsole, study: Study, standing: Standing, command: str) -> None:
    """The table of the best trials, the result in a sentence, and the command for it."""
    table = Table(title="the best trials, as ratios to the control", title_justify="left", title_style="bold")
    for title in titles(study.space):
        table.add_column(title, justify="left" if title == "outcome" else "right", overflow="fold")
    for trial in best_rows(study, MOST_SHOWN):
        best = standing.best is not None and trial.number == standing.best.number
        table.add_row(*row(study, trial), style="bold green" if best else "")
    if table.row_count:
        console.print(table)
    console.print(counted(study), soft_wrap=True)
    console.print(conclusion(study, standing), soft_wrap=True)
    if command:
        console.print(f"to run the job so:\n  {command}", soft_wrap=True)
