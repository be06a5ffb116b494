"""``edldist tune``: many short jobs on one fleet of teachers, to find the settings of a job."""

from __future__ import annotations

from pathlib import Path

import click

from edldist.bounds import MOST
from edldist_launch.cli.options.begin import begin
from edldist_launch.cli.options.option_types import Override
from edldist_launch.cli.options.options import import_from_option, option
from edldist_launch.cli.options.verbosity import chosen_level

__all__ = ["tune"]


@click.command()
@click.argument("job", type=click.Path(path_type=Path))
@option(
    "--space",
    type=click.Path(path_type=Path),
    required=True,
    help="What may be tried, and what for: see docs/tuning.md.",
)
@option(
    "--trials",
    type=click.IntRange(min=1, max=MOST),
    default=40,
    help="Candidates to try in all; controls come on top.",
)
@option(
    "--set",
    "overrides",
    type=Override("EDLDIST_SET"),
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the job, as for `edldist run`. Repeatable.",
)
@option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for everything written (default: out/NAME-tune).",
)
@import_from_option
def tune(
    job: Path,
    space: Path,
    trials: int,
    overrides: tuple[str, ...],
    output: Path | None,
    import_from: str | None,
) -> int:
    """Find better settings for a JOB file, by many short jobs on one fleet of teachers.

    Runs the job with settings of the --space file again and again, each run in a folder of its own, beside
    controls that have the job's own settings, and writes tune.json, report.md and tune.png to --output. The
    same command again goes on with a tuning that was interrupted, and with more --trials with one that ended.
    """
    from edldist_launch.tune.tuning import run_tuning

    begin("tune")
    quiet = chosen_level(click.get_current_context(), "") == "warning"
    beside = Path(import_from) if import_from else None
    return run_tuning(job, overrides, space, trials, output, beside, quiet)
