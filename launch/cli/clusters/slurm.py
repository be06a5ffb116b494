"""``edldist submit slurm``, ``edldist render slurm``, and the placer that runs in a job's own allocation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edldist_launch.cli.options.begin import begin
from edldist_launch.cli.options.option_types import Override
from edldist_launch.cli.options.options import labels_option, option

if TYPE_CHECKING:
    from edldist_launch.record.earlier import Beginning

__all__ = ["placer", "render_slurm", "submit_slurm"]


def _of_a_job(command: Any) -> Any:
    """The job file, and what may be said about it."""
    options: list[Callable[[Any], Any]] = [
        click.argument("job", type=click.Path(path_type=Path)),
        option(
            "--set",
            "overrides",
            type=Override("EDLDIST_SET"),
            multiple=True,
            metavar="KEY=VALUE",
            help="Change the job: a dotted key and a YAML value, as in slurm.partition=gpu. Repeatable; the "
            "variable holds several, parted and quoted as in a shell.",
        ),
        labels_option,
        option(
            "--output",
            type=click.Path(path_type=Path, file_okay=False),
            help="Folder for everything written, which all hosts of the cluster see (default: out/NAME, or "
            "the next free one of out/NAME-2, ...).",
        ),
        option(
            "--fresh",
            is_flag=True,
            help="Begin anew: what an earlier run recorded in the folder moves into earlier-N there.",
        ),
        option(
            "--extend",
            is_flag=True,
            help="Go on from the folder's last checkpoint, though the run is finished or the job changed.",
        ),
    ]
    for each in reversed(options):
        command = each(command)
    return command


def _beginning(fresh: bool, extend: bool) -> Beginning:
    if fresh and extend:
        raise click.UsageError("--fresh begins anew and --extend goes on: give one of them.")
    return "fresh" if fresh else "extend" if extend else "resume"


@click.command("slurm")
@_of_a_job
@option("--dry-run", is_flag=True, help="Ask Slurm whether it would take the job, and queue nothing.")
def submit_slurm(
    job: Path,
    overrides: tuple[str, ...],
    labels: bool,
    output: Path | None,
    fresh: bool,
    extend: bool,
    dry_run: bool,
) -> int:
    """Queue the whole job of a JOB file on this Slurm cluster.

    One job for the coordinator, which also keeps the others in number, and an array for each teacher group
    and for the student nodes, of which every task comes, leaves and is brought back for itself. All of it is
    queued, or nothing. The same command again goes on with a job that has ended before it was done.
    """
    from edldist_launch.job.on_slurm import submit_to_slurm
    from edldist_launch.plan.labelling import loader

    beginning = _beginning(fresh, extend)
    return submit_to_slurm(job, overrides, output, beginning, dry_run=dry_run, load=loader(labels))


@click.command("slurm")
@_of_a_job
def render_slurm(
    job: Path, overrides: tuple[str, ...], labels: bool, output: Path | None, fresh: bool, extend: bool
) -> int:
    """Print the job scripts of a JOB file, exactly as submit queues them."""
    from edldist_launch.job.on_slurm import render_for_slurm
    from edldist_launch.plan.labelling import loader

    print(render_for_slurm(job, overrides, output, _beginning(fresh, extend), loader(labels)), end="")
    return 0


@click.command(hidden=True)
@option("--output", type=click.Path(path_type=Path, file_okay=False, exists=True), required=True)
def placer(output: Path) -> int:
    """Run the coordinator of a submitted job, and keep its other processes in number."""
    from edldist_launch.slurm.placer import run_placer

    begin("placer")
    return run_placer(output)
