"""``edldist run``: a whole job on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from edldist_launch.cli.options.begin import begin
from edldist_launch.cli.options.option_types import Override
from edldist_launch.cli.options.options import import_from_option, option
from edldist_launch.cli.options.verbosity import chosen_level

__all__ = ["run"]


@click.command()
@click.argument("job", type=click.Path(path_type=Path))
@option(
    "--set",
    "overrides",
    type=Override("EDLDIST_SET"),
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the job: a dotted key and a YAML value, as in teachers.0.replicas=3. Repeatable; the "
    "variable holds several, parted and quoted as in a shell.",
)
@option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for everything written (default: out/NAME, or the next free one of out/NAME-2, ...).",
)
@option(
    "--fresh",
    is_flag=True,
    help="Begin anew: what an earlier run recorded in the folder moves into earlier-N there.",
)
@option(
    "--extend",
    is_flag=True,
    help="Go on from the folder's last checkpoint, though the run is finished, the job has changed, or a "
    "teacher's weights have.",
)
@option("--dry-run", is_flag=True, help="Print the resolved job, and start nothing; models are looked for.")
@option(
    "--detach",
    is_flag=True,
    help="Run it in the background, and return once it has begun: see edldist status, logs, scale and stop.",
)
@import_from_option
def run(
    job: Path,
    overrides: tuple[str, ...],
    output: Path | None,
    fresh: bool,
    extend: bool,
    dry_run: bool,
    detach: bool,
    import_from: str | None,
) -> int:
    """Run the whole job of a JOB file on this machine.

    Starts a coordinator, the teacher workers and the students, watches over them, and writes
    result.json, events.jsonl, logs and checkpoints to --output. The same command again goes on with a run
    that was interrupted, from its last checkpoint.
    """
    if fresh and extend:
        raise click.UsageError("--fresh begins anew and --extend goes on: give one of them.")
    from edldist_launch.record.earlier import Beginning

    beginning: Beginning = "fresh" if fresh else "extend" if extend else "resume"
    if dry_run:
        from edldist_launch.job.dry_run import describe_run

        print(describe_run(job, overrides, output, beginning), end="")
        return 0
    if detach:
        from edldist_launch.job.detached import start_detached

        return start_detached(job, overrides, output, beginning)
    from edldist_launch.job.run import run_job

    begin("run")
    quiet = chosen_level(click.get_current_context(), "") == "warning"
    return run_job(job, overrides, output, beginning, Path(import_from) if import_from else None, quiet)
