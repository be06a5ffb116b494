"""``edldist doctor``: what this machine lacks for jobs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edldist_launch.cli.option_types import COORDINATOR
from edldist_launch.cli.options import option
from edldist_launch.process.exits import EXIT_FAILED

__all__ = ["doctor"]


@click.command()
@option(
    "--coordinator",
    type=COORDINATOR,
    metavar="URL",
    help="The coordinator of a job that this machine is to join: does it answer, do the clocks agree?",
)
@option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default=Path("out"),
    help="The folder that a job would write to.",
)
@option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(coordinator: str | None, output: Path, as_json: bool) -> int:
    """Look at what jobs need of this machine, and say what to do where something is missing.

    Exit code 1 if a job cannot run here; a warning is something that some jobs will meet.
    """
    from edldist_launch.doctor.examination import examine
    from edldist_launch.doctor.report import show_findings

    return EXIT_FAILED if show_findings(examine(output, coordinator), sys.stdout, as_json) else 0
