"""``edldist logs``: what the processes of a job print."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edldist.bounds import MOST
from edldist_launch.cli.options.jobs import chosen_job, job_option
from edldist_launch.cli.options.options import option

__all__ = ["logs"]


@click.command()
@click.argument("roles", nargs=-1, metavar="[ROLE]...")
@option("--follow", "-f", is_flag=True, help="Go on until the job has ended, or Ctrl-C.")
@option(
    "--tail",
    "-n",
    type=click.IntRange(min=0, max=MOST),
    metavar="N",
    help="Of what was printed until now only the last N lines of each process.",
)
@option("--json", "as_json", is_flag=True, help='Print {"process": ..., "line": ...} for each line.')
@job_option
def logs(roles: tuple[str, ...], follow: bool, tail: int | None, as_json: bool, output: Path | None) -> int:
    """Show what the processes of a job print, each line begun by the process's name, in the order of time.

    ROLE is a teacher's name in the job file, student, coordinator or prepare, or one process, as teacher-0;
    of a tuning, one trial, as trial-7 (default: all of them). Name several to see them together.
    """
    from edldist_launch.view.logs import last_lines, logs_of, show_logs

    backend = chosen_job(output, ended_too=True).backend
    try:
        if tail is None:
            lines = logs_of(backend, roles, follow)
        else:
            lines = last_lines(lambda further: logs_of(backend, roles, further), tail, follow)
        show_logs(lines, sys.stdout, as_json=as_json, at_once=follow)
    except KeyboardInterrupt:
        if not follow:
            raise
    return 0
