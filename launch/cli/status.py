"""``edldist status``: of a coordinator, or of a job's output folder."""

from __future__ import annotations

from pathlib import Path

import click

from edldist_launch.cli.option_types import COORDINATOR
from edldist_launch.cli.options import on_command_line, option

__all__ = ["status"]


@click.command()
@option(
    "--coordinator",
    type=COORDINATOR,
    metavar="URL",
    help="Address of the coordinator (default: tcp://127.0.0.1:7070).",
)
@option(
    "--output",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="The output folder of a job, in place of its coordinator's address; shows its result after its end.",
)
@option("--json", "as_json", is_flag=True, help="Print JSON.")
@option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C or the job's end.")
def status(coordinator: str | None, output: Path | None, as_json: bool, watch: bool) -> int:
    """Show the members of a job, their figures, and who waits for whom and why."""
    if coordinator is not None and output is not None:
        if on_command_line("coordinator") and on_command_line("output"):
            raise click.UsageError("--coordinator and --output both say which job: give one of them.")
        output = output if on_command_line("output") else None
    from edldist_launch.view.console import PlainConsole
    from edldist_launch.view.status import show_status, show_status_of_folder

    try:
        if output is not None:
            return show_status_of_folder(output, as_json, PlainConsole(), watch)
        return show_status(coordinator or "tcp://127.0.0.1:7070", as_json, PlainConsole(), watch)
    except KeyboardInterrupt:
        if watch:
            return 0  # the way to end it
        raise
