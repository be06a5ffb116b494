"""Which job a command means: the options for it, and a word about the one that was taken."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edldist_launch.cli.options.option_types import COORDINATOR
from edldist_launch.cli.options.options import on_command_line, option

if TYPE_CHECKING:
    from edldist_launch.contract.backend import JobState
    from edldist_launch.job.found import FoundJob

__all__ = [
    "chosen_job",
    "coordinator_or_folder",
    "coordinator_that_runs",
    "either_option",
    "engine_of",
    "job_option",
    "unnamed_job",
]

COORDINATOR_BY_HAND = "tcp://127.0.0.1:7070"
CONNECT_S, ANSWER_S = 0.5, 2.0

job_option = option(
    "--output",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="The output folder of the job (default: that of the newest job in ./out that runs).",
)


def either_option(command: Any) -> Any:
    """``--output`` or ``--coordinator``."""
    by_coordinator = option(
        "--coordinator", type=COORDINATOR, metavar="URL", help="The address of the job's coordinator."
    )
    return by_coordinator(job_option(command))


def coordinator_or_folder(
    coordinator: str | None, folder: Path | None, named: str = "--output"
) -> tuple[str | None, Path | None]:
    """The one of both that was given: what is on the command line wins over variables.

    Args:
        named: what the command calls the folder: ``--output``, or its argument, ``DIR``.

    Raises:
        click.UsageError: both are on the command line.
    """
    if coordinator is None or folder is None:
        return coordinator, folder
    parameter = named.removeprefix("--") if named.startswith("--") else "folder"
    if on_command_line("coordinator") and on_command_line(parameter):
        raise click.UsageError(f"--coordinator and {named} both say which job: give one of them.")
    return (None, folder) if on_command_line(parameter) else (coordinator, None)


def coordinator_that_runs(coordinator: str | None, folder: Path | None, named: str = "--output") -> str:
    """The coordinator of the running job that a command means: by its address, its folder, or neither.

    Args:
        named: as for ``coordinator_or_folder``.

    Raises:
        click.UsageError: both are on the command line.
        ConfigError: no coordinator of that job runs: it has ended, or none has started yet.
        LaunchError: its engine does not tell.
    """
    from edldist.errors import ConfigError
    from edldist_launch.record.earlier import read_result
    from edldist_launch.view.whereabouts import coordinator_of

    coordinator, folder = coordinator_or_folder(coordinator, folder, named)
    if coordinator is None and folder is None:
        coordinator, folder = unnamed_job()
    if folder is not None:
        if (result := read_result(folder / "result.json")) is not None:
            ended = f"the job of {folder} has ended ({result.get('status')})"
            raise ConfigError(f"{ended}: edldist report {folder} says how it went")
        coordinator = coordinator_of(folder, engine_of(folder), wait=False)
    if coordinator is None:
        raise ConfigError(f"{folder}: its job has started no coordinator yet, or has ended")
    return coordinator


def chosen_job(output: Path | None, *, ended_too: bool = False) -> FoundJob:
    """The job of a folder, or the newest one that runs, which is said then. Its keys are used from now on.

    Raises:
        ConfigError: there is none.
    """
    from edldist_launch.contract.job_keys import use_keys_of
    from edldist_launch.job.found import find_job, newest_job

    if output is not None:
        job = find_job(output)
        use_keys_of(job.submission)
        return job
    job = newest_job(ended_too=ended_too)
    use_keys_of(job.submission)
    print(f"job {job.submission.job} of {job.output}", file=sys.stderr)
    return job


def unnamed_job() -> tuple[str | None, Path | None]:
    """The coordinator, or the folder, of the job that somebody means who names neither.

    Raises:
        ConfigError: there is none; says what there is.
    """
    from edldist.errors import ConfigError

    by_hand = _answers(COORDINATOR_BY_HAND)
    try:
        return None, chosen_job(None, ended_too=not by_hand).output
    except ConfigError as exc:
        if by_hand:
            return COORDINATOR_BY_HAND, None
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


def engine_of(output: Path) -> Callable[[], JobState] | None:
    """What tells the state of a folder's job as its engine sees it; None where none was handed the job.

    The job's keys are used from now on.
    """
    from edldist_launch.contract.job_keys import use_keys_of
    from edldist_launch.contract.submission import find_submission
    from edldist_launch.job.engines import backend_of

    submission = find_submission(output)
    if submission is None:
        return None
    use_keys_of(submission)
    return backend_of(submission, output).state
