"""``edldist status``: of a coordinator, or of a job's output folder."""

from __future__ import annotations

from pathlib import Path

import click

from edldist_launch.cli.options.jobs import coordinator_or_folder, either_option, engine_of, unnamed_job
from edldist_launch.cli.options.options import option

__all__ = ["status"]


@click.command()
@option("--json", "as_json", is_flag=True, help="Print JSON.")
@option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C or the job's end.")
@either_option
def status(coordinator: str | None, output: Path | None, as_json: bool, watch: bool) -> int:
    """Show the members of a job, their figures, and who waits for whom and why.

    With the output folder, processes that are not in the job yet are shown too, and the job's result after
    its end. Without either option it is the newest job in ./out that runs; else the coordinator at
    tcp://127.0.0.1:7070, if one is there; else the newest job that has ended.
    """
    coordinator, output = coordinator_or_folder(coordinator, output)
    from edldist_launch.view.console import PlainConsole
    from edldist_launch.view.status import show_status, show_status_of_folder

    try:
        if coordinator is None and output is None:
            coordinator, output = unnamed_job()
        if output is not None:
            return show_status_of_folder(output, as_json, PlainConsole(), watch, engine_of(output))
        assert coordinator is not None
        return show_status(coordinator, as_json, PlainConsole(), watch)
    except KeyboardInterrupt:
        if watch:
            return 0  # the way to end it
        raise
