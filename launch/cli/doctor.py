"""``edldist doctor``: what this machine lacks for jobs, or what holds up a job that runs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edldist.grace import KILL_S
from edldist_launch.cli.options.jobs import coordinator_that_runs
from edldist_launch.cli.options.option_types import COORDINATOR, Seconds
from edldist_launch.cli.options.options import option
from edldist_launch.process.exits import EXIT_FAILED

__all__ = ["doctor"]

LONGEST_S = 60.0


@click.command()
@option(
    "--coordinator",
    type=COORDINATOR,
    metavar="URL",
    help="The coordinator of a job that this machine is to join: does it answer, do the clocks agree? With "
    "--job: that of the job.",
)
@option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder that a job would write to (default: out). With --job: that of the job (default: the "
    "newest in ./out that runs).",
)
@option(
    "--job-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="A job file: does this cluster let its processes leave for as long as they may take?",
)
@option("--job", is_flag=True, help="Look at a job that runs: which side holds up the other, and why.")
@option(
    "--seconds",
    type=Seconds(min=0, min_open=True, max=LONGEST_S),
    default=5.0,
    metavar="S",
    help="With --job: for how long.",
)
@option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(
    coordinator: str | None,
    output: Path | None,
    job_file: Path | None,
    job: bool,
    seconds: float,
    as_json: bool,
) -> int:
    """Look at what jobs need of this machine, and say what to do where something is missing.

    Exit code 1 if a job cannot run here; a warning is something that some jobs will meet.

    With --job it looks at a running job for a few seconds instead, and says what holds it up: teachers, the
    students' own steps, their data loaders, the network, one slow worker; and what to do. Exit code 1 if it
    gets nowhere.
    """
    from edldist_launch.doctor.report import OF_A_JOB, show_findings

    if job:
        from edldist_launch.doctor.job import examine_job

        if job_file is not None:
            raise click.UsageError("--job looks at a job that runs, --job-file at a file: give one of them.")
        findings = examine_job(coordinator_that_runs(coordinator, output), seconds)
        return EXIT_FAILED if show_findings(findings, sys.stdout, as_json, OF_A_JOB) else 0
    from edldist_launch.doctor.examination import examine

    kill_s = KILL_S
    if job_file is not None:
        from edldist.config import load_job

        kill_s = load_job(job_file).grace.kill_s
    found = examine(output or Path("out"), coordinator, kill_s)
    return EXIT_FAILED if show_findings(found, sys.stdout, as_json) else 0
