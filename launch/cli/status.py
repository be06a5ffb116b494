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
CONNECT_S, ANSWER_S = 0.5, 2.0


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
            coordinator, output = _unnamed()
        if output is not None:
            return show_status_of_folder(output, as_json, PlainConsole(), watch, _engine_of(output))
        assert coordinator is not None
        return show_status(coordinator, as_json, PlainConsole(), watch)
    except KeyboardInterrupt:
        if watch:
            return 0  # the way to end it
        raise


def _unnamed() -> tuple[str | None, Path | None]:
    """The coordinator, or the folder, of the job that somebody means who names neither.

    Raises:
        ConfigError: there is none; says what there is.
    """
    from edldist.errors import ConfigError

    by_hand = _answers(COORDINATOR)
    try:
        return None, chosen_job(None, ended_too=not by_hand).output
    except ConfigError as exc:
        if by_hand:
            return COORDINATOR, None
        raise ConfigError(f"{exc}, or its coordinator by --coordinator URL") from exc


def _answers(coordinator: str) -> bool:
    """Whether one is there: nobody is told of a coordinator that he never started."""
    import contextlib
    import socket

    from edldist.address import parse_address
    from edldist.errors import CoordinatorUnreachableError
    from edldist.wire.query import StatusClient

    address = parse_address(coordinator, "--coordinator")
    try:
        socket.create_connection((address.host, address.port), timeout=CONNECT_S).close()
        with contextlib.closing(StatusClient(coordinator)) as client:
            client.query(0, ANSWER_S)
    except (OSError, CoordinatorUnreachableError):
        return False
    return True


def _engine_of(output: Path) -> Callable[[], JobState] | None:
    """What tells the state of a folder's job as its engine sees it; None where none was handed the job."""
    from edldist_launch.contract.submission import find_submission
    from edldist_launch.job.engines import backend_of

    submission = find_submission(output)
    return None if submission is None else backend_of(submission, output).state
