"""What a person sees while a job runs, and at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from edldist.wording import duration, number
from edldist_launch.record.tally import Figures
from edldist_launch.view.console import PlainConsole, near, shown

__all__ = [
    "Doing",
    "ProgressView",
    "View",
    "plain_line",
    "show_finished",
    "show_result",
    "why_it_ended",
]

PLAIN_EVERY_S = 5.0
ONE_LINE_METRICS = 4
Doing = Literal["training", "labelling"]
COUNTED: dict[Doing, str] = {"training": "step", "labelling": "labelled sample"}


def _of(value: int | None, total: int | None) -> str:
    if value is None:
        return "-"
    return f"{value}/{total}" if total is not None else str(value)


def _left_out(samples: int) -> str:
    noun = "sample" if samples == 1 else "samples"
    return f"{samples} {noun} that no worker could label"


def _missed(samples: int) -> str:
    noun = "sample" if samples == 1 else "samples"
    return f"{samples} {noun} without labels of a missing teacher"


def plain_line(figures: Figures, workers_wanted: int, elapsed_s: float, counted: str = "step") -> str:
    """The figures in one line.

    Args:
        counted: what the job counts.
    """
    parts = [f"[{duration(elapsed_s)}]"]
    if figures.epoch is not None:
        parts.append(f"epoch {_of(figures.epoch, figures.epochs)}")
    parts.append(f"{counted} {_of(figures.step, figures.steps)}")
    parts.append(f"{figures.samples_per_s:.0f} samples/s")
    parts += [f"{name} {number(value)}" for name, value in list(figures.metrics.items())[:ONE_LINE_METRICS]]
    parts.append(f"workers {figures.workers}/{workers_wanted}")
    parts.append(f"buffered {figures.buffered}")
    parts.append(f"starved {figures.starved_s:.1f}s")
    if figures.skipped_samples:
        parts.append(f"left out {_left_out(figures.skipped_samples)}")
    if figures.missed_samples:
        parts.append(_missed(figures.missed_samples))
    if figures.eta_s is not None:
        parts.append(f"eta {duration(figures.eta_s)}")
    return " · ".join(parts)


class View(Protocol):
    """Where a watched job is shown."""

    workers_wanted: int

    def __enter__(self) -> View: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def say(self, text: str, style: str = "") -> None:
        """One line that stays."""

    def update(self, figures: Figures, phase: str, elapsed_s: float) -> None:
        """Show the figures of now."""


class ProgressView:
    """One live view on a terminal; elsewhere a plain line every 5 s.

    ``say`` prints a change of state above the view (or as a line of its own).

    Args:
        doing: what the job does while all is well.
    """

    def __init__(
        self, console: PlainConsole, job: str, workers_wanted: int, doing: Doing = "training"
    ) -> None:
        self._console = console
        self._job = job
        self._doing = doing
        self._counted = COUNTED[doing]
        self.workers_wanted = workers_wanted
        self._live: Live | None = None
        self._next_line_s = 0.0
        self._phase = "starting"
        self._closed = False

    def __enter__(self) -> ProgressView:
        if self._console.is_terminal:
            self._live = Live(
                self._render(Figures(), 0.0), console=self._console, auto_refresh=False, transient=True
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed = True
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str, style: str = "") -> None:
        """One line that stays."""
        self._console.print(text, style=style, soft_wrap=True)

    def update(self, figures: Figures, phase: str, elapsed_s: float) -> None:
        """Show the figures of now; called a few times a second."""
        self._phase = phase
        if self._closed:
            return
        if self._live is not None:
            self._live.update(self._render(figures, elapsed_s), refresh=True)
        elif elapsed_s >= self._next_line_s:
            self._next_line_s = elapsed_s + PLAIN_EVERY_S
            prefix = "" if phase == self._doing else f"{phase}: "
            self.say(prefix + plain_line(figures, self.workers_wanted, elapsed_s, self._counted))

    def _render(self, figures: Figures, elapsed_s: float) -> RenderableType:
        head = Text.assemble(
            (self._job, "bold"),
            "  ",
            (self._phase, "green" if self._phase == self._doing else "yellow"),
            f"  {duration(elapsed_s)}",
            f"  eta {duration(figures.eta_s)}" if figures.eta_s is not None else "",
        )
        grid = Table.grid(padding=(0, 3, 0, 0))
        for _ in range(3):
            grid.add_column(style="dim", no_wrap=True)
            grid.add_column(min_width=10, no_wrap=True)
        workers = Text(
            f"{figures.workers}/{self.workers_wanted}",
            style="" if figures.workers >= self.workers_wanted else "yellow",
        )
        grid.add_row(
            *("epoch", _of(figures.epoch, figures.epochs)),
            *("samples/s", f"{figures.samples_per_s:.0f}"),
            *("workers", workers),
        )
        grid.add_row(
            *(self._counted, _of(figures.step, figures.steps)),
            *(f"{self._counted}s/s", f"{figures.steps_per_s:.1f}"),
            *("ranks", str(figures.ranks)),
        )
        grid.add_row(
            *("buffered", f"{figures.buffered} batches"),
            *("starved", f"{figures.starved_s:.1f} s"),
            *("", ""),
        )
        rows: list[RenderableType] = [head]
        if figures.skipped_samples:
            rows.append(Text(f"left out {_left_out(figures.skipped_samples)}", style="yellow"))
        if figures.missed_samples:
            rows.append(Text(_missed(figures.missed_samples), style="yellow"))
        if figures.steps and figures.step is not None:
            bar = Table.grid()  # alone, the bar would not end its line
            bar.add_row(
                ProgressBar(total=figures.steps, completed=min(figures.step, figures.steps), width=64)
            )
            rows.append(bar)
        rows.append(grid)
        if figures.metrics:
            rows.append(
                Text(
                    shown("  ".join(f"{name} {number(value)}" for name, value in figures.metrics.items())),
                    overflow="ellipsis",
                    no_wrap=True,
                )
            )
        return Group(*rows)


def show_finished(
    console: PlainConsole, folder: Path, result: Mapping[str, Any], doing: Doing = "training"
) -> None:
    """The result of a job that was found finished, and how to run it again."""
    with contextlib.suppress(KeyError, TypeError, ValueError):  # a file that somebody has changed
        show_result(console, result, doing)
    console.print(
        f"{near(folder)} holds this job's finished run: nothing was started. Say --fresh to run it again ("
        "this run is kept, in earlier-N), or --extend to start the script again from the last checkpoint",
        soft_wrap=True,
    )


def why_it_ended(result: Mapping[str, Any]) -> str:
    """The line with which a job ends that was not completed; empty where its result gives no reason."""
    status, reason = result.get("status"), result.get("reason")
    return f"{'error' if status == 'failed' else status}: {reason}" if reason else ""


def show_result(console: PlainConsole, result: Mapping[str, Any], doing: Doing = "training") -> None:
    """The summary of a finished job, and its final metrics."""
    style = {"completed": "green", "interrupted": "yellow"}.get(str(result["status"]), "red")
    teachers, tasks = result["teachers"], result["tasks"]
    summary = Table(title=f"job {result['job']}", title_justify="left", title_style="bold", show_header=False)
    summary.add_column(style="dim", no_wrap=True)
    summary.add_column()
    summary.add_row("status", Text(str(result["status"]), style=style))
    if doing == "training":
        summary.add_row("steps", f"{result['steps']} (epochs {result['epochs']})")
    summary.add_row("samples", f"{result['samples']} ({result['samples_per_s']:.1f} per second)")
    if result["skipped_samples"]:
        summary.add_row("left out", Text(_left_out(result["skipped_samples"]), style="yellow"))
    if result["missed_samples"]:
        summary.add_row("went on with", Text(_missed(result["missed_samples"]), style="yellow"))
    if any(result[key] for key in ("spikes", "rollbacks", "left_out_samples")):
        text = f"{result['spikes']} seen, {result['rollbacks']} rollbacks, "
        text += f"{result['left_out_samples']} samples left out"
        summary.add_row("loss spikes", Text(text, style="yellow"))
    if result["retracted_labels"] or result["doubtful_labels"]:
        text = f"{result['retracted_labels']} made anew, {result['doubtful_labels']} had been learnt from"
        summary.add_row("labels of workers put aside", Text(text, style="yellow"))
    if result.get("found_samples") or result.get("coalesced_samples"):
        text = f"{result['found_samples']} samples found, {result['coalesced_samples']} equal to others"
        summary.add_row("not asked for", text)
    for labels in result.get("labels", ()):
        text = f"{labels['samples']:,} samples in {labels['files']} files, {labels['bytes']:,} bytes"
        summary.add_row(f"labels of {labels['model']}", text)
    summary.add_row("wall time", duration(result["wall_s"]))
    summary.add_row(
        "waited",
        f"{result['starved_s']:.1f} s for labels, {result['backpressure_s']:.1f} s with a full buffer",
    )
    if "worker_s" in result:  # a finished run may be of an earlier edldist
        summary.add_row("worker-seconds", f"{result['worker_s']:.0f}")
    summary.add_row("workers", ", ".join(f"{teachers[key]} {key}" for key in ("joined", "left", "lost")))
    summary.add_row("tasks", ", ".join(f"{count} {key}" for key, count in tasks.items()))
    if result["student_restarts"]:
        summary.add_row("student restarts", str(result["student_restarts"]))
    console.print(summary)
    if result["metrics"]:
        metrics = Table(title="metrics", title_justify="left", title_style="bold", show_header=False)
        metrics.add_column(style="dim")
        metrics.add_column(justify="right")
        for name, value in result["metrics"].items():
            metrics.add_row(name, number(value))
        console.print(metrics)
