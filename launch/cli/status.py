"""``edldist status``: of a coordinator, or of a job's output folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edldist_launch.cli.jobs import chosen_job, coordinator_or_folder, either_option
from edldist_launch.cli.options import option

if TYPE_CHECKING:
    from edldist_launch.contract.backend import JobState

__all__ = ["status"]

COORDINATOR = "tcp://127.0.0.1:7070"


@click.command()
@option("--json", "as_json", is_flag=True, help="Print JSON.")
@option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C or the job's end.")
@either_option
def status(coordinator: str | None, output: Path | None, as_json: bool, watch: bool) -> int:
    """Show the members of a job, their figures, and who waits for whom and why.

    With the output folder, processes that are not in the job yet are shown too, and the job's result after
    its end. Without either option it is the newest job in ./out that runs, else the coordinator at
    tcp://127.0.0.1:7070.
    """
    coordinator, output = coordinator_or_folder(coordinator, output)
    from edldist_launch.view.console import PlainConsole
    from edldist_launch.view.status import show_status, show_status_of_folder

    try:
        if coordinator is None and output is None:
            output = _newest()
        if output is not None:
            return show_status_of_folder(output, as_json, PlainConsole(), watch, _engine_of(output))
        return show_status(coordinator or COORDINATOR, as_json, PlainConsole(), watch)
    except KeyboardInterrupt:
        if watch:
            return 0  # the way to end it
        raise


def _newest() -> Path | None:
    """The folder of the newest job that runs; None without one."""
    from edldist.errors import ConfigError

    try:
        return chosen_job(None).output
    except ConfigError:
        return None


def _engine_of(output: Path) -> Callable[[], JobState] | None:
    """What tells the state of a folder's job as its engine sees it; None where none was handed the job."""
    from edldist_launch.contract.submission import find_submission
    from edldist_launch.job.engines import backend_of

    submission = find_submission(output)
    return None if submission is None else backend_of(submission, output).state
