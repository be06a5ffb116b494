"""``edldist doctor``: what this machine lacks for jobs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edldist.grace import KILL_S
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
@option(
    "--job",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="A job file: does this cluster let its processes leave for as long as they may take?",
)
@option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(coordinator: str | None, output: Path, job: Path | None, as_json: bool) -> int:
    """Look at what jobs need of this machine, and say what to do where something is missing.

    Exit code 1 if a job cannot run here; a warning is something that some jobs will meet.
    """
    from edldist_launch.doctor.examination import examine
    from edldist_launch.doctor.report import show_findings

    kill_s = KILL_S
    if job is not None:
        from edldist.config import load_job

        kill_s = load_job(job).grace.kill_s
    findings = examine(output, coordinator, kill_s)
    return EXIT_FAILED if show_findings(findings, sys.stdout, as_json) else 0
