"""``edldist logs``: what the processes of a job print."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edldist_launch.cli.jobs import chosen_job, job_option
from edldist_launch.cli.options import option

__all__ = ["logs"]


@click.command()
@click.argument("role", required=False)
@option("--follow", "-f", is_flag=True, help="Go on until the job has ended, or Ctrl-C.")
@job_option
def logs(role: str | None, follow: bool, output: Path | None) -> int:
    """Show what the processes of a job print, each line begun by the process's name.

    ROLE is a teacher's name in the job file, student, coordinator or prepare (default: all of them).
    """
    from edldist_launch.view.logs import show_logs

    job = chosen_job(output, ended_too=True)
    try:
        show_logs(job.backend.logs(role, follow), sys.stdout)
    except KeyboardInterrupt:
        if not follow:
            raise
    return 0
