"""``python -m edldist_benchmarks`` and ``edldist bench``: measure rows, print tables, draw."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import click

if Path(sys.path[0] or ".").resolve() == Path(__file__).resolve().parent:
    del sys.path[0]  # run by path: this folder's modules must not stand in for others

from edldist_benchmarks.catalog import Outcome, UnknownRowError, select  # noqa: E402
from edldist_benchmarks.figures import Settings  # noqa: E402
from edldist_launch.process.exits import EXIT_FAILED, EXIT_INTERRUPTED, run_command  # noqa: E402


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("rows", nargs=-1, metavar="[ROW]...")
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    envvar="EDLDIST_REPEATS",
    help="Interleaved runs of each measurement; medians are compared.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True, max=3600),
    default=2.0,
    show_default=True,
    envvar="EDLDIST_SECONDS",
    help="Length of one run.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out/bench"),
    show_default=True,
    envvar="EDLDIST_OUTPUT",
    help="Folder for bench.json, bench.md and the pictures.",
)
@click.option("--list", "listing", is_flag=True, envvar="EDLDIST_LIST", help="Name the rows and stop.")
def bench(rows: tuple[str, ...], repeats: int, seconds: float, output: Path, listing: bool) -> int:
    """Measure the figures of edldist, each beside its limit in the same run.

    ROW names what to measure (default: everything, about a quarter of an hour on two cores). Use a
    quiet machine. A budget that is missed shows in the table and changes no exit code.

    Exit codes: 0 measured, 1 a row failed, 2 usage, 130 interrupted.
    """
    if not seconds > 0:  # click lets NaN through
        raise click.BadParameter(f"{seconds} is no length of time.", param_hint="--seconds")
    try:
        chosen = select(rows)
    except UnknownRowError as exc:
        raise click.UsageError(str(exc)) from exc
    if listing:
        for row in chosen:
            click.echo(f"{row.name:<14}{row.title}")
        return 0
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise click.BadParameter(f"{output}: {exc.strerror}", param_hint="--output") from exc
    # Variables of a job or of options must not reach what is measured.
    for name in [name for name in os.environ if name.startswith("EDLDIST_")]:
        del os.environ[name]
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    return _Bench(Settings(repeats, seconds), output).run(chosen)


class _Bench:
    """One run of some rows. ``bench.json`` is written after each row, so that nothing is lost."""

    def __init__(self, settings: Settings, output: Path) -> None:
        from edldist_benchmarks.machine import describe_machine

        self._settings = settings
        self._output = output
        self._machine = describe_machine()
        self._started = time.time()
        self._outcomes: list[Outcome] = []

    def run(self, rows: list[Any]) -> int:
        interrupted = False
        try:
            for row in rows:
                click.echo(f"{row.name}: {row.title} ...", err=True)
                self._outcomes.append(row.run(self._settings))
                self._write()
                outcome = self._outcomes[-1]
                click.echo(f"{row.name}: {outcome.status} in {outcome.took_s:.0f} s", err=True)
                if outcome.trace:
                    click.echo(outcome.trace, err=True)
        except KeyboardInterrupt:
            interrupted = True
        self._report()
        if interrupted:
            return EXIT_INTERRUPTED
        return EXIT_FAILED if any(outcome.status == "failed" for outcome in self._outcomes) else 0

    def _write(self) -> None:
        document = {
            "started": self._started,
            "took_s": round(time.time() - self._started, 1),
            "settings": {"repeats": self._settings.repeats, "seconds": self._settings.seconds},
            "machine": self._machine,
            "rows": [outcome.document() for outcome in self._outcomes],
        }
        whole = self._output / "bench.json"
        part = whole.with_suffix(".part")
        part.write_text(json.dumps(document, indent=2) + "\n")
        part.rename(whole)

    def _report(self) -> None:
        from rich.console import Console

        from edldist_benchmarks.machine import machine_line
        from edldist_benchmarks.plots import INSTALL_HINT, draw_curves
        from edldist_benchmarks.report import markdown_report, print_report

        width = None if sys.stdout.isatty() else 140
        machine = machine_line(self._machine)
        print_report(Console(highlight=False, width=width), self._outcomes, machine)
        (self._output / "bench.md").write_text(markdown_report(self._outcomes, machine))
        curves = [curve for outcome in self._outcomes for curve in outcome.result.curves]
        pictures = draw_curves(curves, self._output)
        if pictures is None:
            click.echo(INSTALL_HINT)
        if self._outcomes:
            click.echo(f"figures: {self._output / 'bench.json'}" + "".join(f", {p}" for p in pictures or ()))


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    run_command(bench, "edldist bench")


if __name__ == "__main__":
    main()
