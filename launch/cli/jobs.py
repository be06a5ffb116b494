"""Which job a command means: the options for it, and a word about the one that was taken."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edldist_launch.cli.option_types import COORDINATOR
from edldist_launch.cli.options import on_command_line, option

if TYPE_CHECKING:
    from edldist_launch.job.found import FoundJob

__all__ = ["chosen_job", "coordinator_or_folder", "either_option", "job_option"]

job_option = option(
    "--output",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="The output folder of the job (default: that of the newest job in ./out that runs).",
)


def either_option(command: Any) -> Any:
    """``--output`` or ``--coordinator``."""
    by_coordinator = option(
        "--coordinator", type=COORDINATOR, metavar="URL", help="The address of the job's coordinator."
    )
    return by_coordinator(job_option(command))


def coordinator_or_folder(coordinator: str | None, output: Path | None) -> tuple[str | None, Path | None]:
    """The one of both that was given: what is on the command line wins over variables.

    Raises:
        click.UsageError: both are on the command line.
    """
    if coordinator is None or output is None:
        return coordinator, output
    if on_command_line("coordinator") and on_command_line("output"):
        raise click.UsageError("--coordinator and --output both say which job: give one of them.")
    return (None, output) if on_command_line("output") else (coordinator, None)


def chosen_job(output: Path | None, *, ended_too: bool = False) -> FoundJob:
    """The job of a folder, or the newest one that runs, which is said then.

    Raises:
        ConfigError: there is none.
    """
    from edldist_launch.job.found import find_job, newest_job

    if output is not None:
        return find_job(output)
    job = newest_job(ended_too=ended_too)
    print(f"job {job.submission.job} of {job.output}", file=sys.stderr)
    return job
