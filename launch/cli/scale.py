"""``edldist scale``: how many processes of a role a running job has."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edldist.bounds import MOST_WORKERS
from edldist_launch.cli.options.jobs import chosen_job, coordinator_or_folder, either_option
from edldist_launch.cli.options.option_types import NAME
from edldist_launch.cli.options.options import option

__all__ = ["scale"]


def _numbers(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, int | None]:
    """The number of each role; None for ``auto``."""
    numbers: dict[str, int | None] = {}
    for text in given:
        name, equals, number = text.partition("=")
        automatic = number == "auto"
        if not equals or not name or not (automatic or (number.isascii() and number.isdecimal())):
            raise click.BadParameter(f"{text!r} is not NAME=N or NAME=auto, such as teacher=8.")
        if name in numbers:
            raise click.BadParameter(f"{name} is given twice.")
        if not automatic and int(number[:10]) > MOST_WORKERS:
            raise click.BadParameter(f"{text!r}: at most {MOST_WORKERS} are possible.")
        numbers[NAME(name)] = None if automatic else int(number)
    return numbers


@click.command()
@click.argument("numbers", nargs=-1, required=True, metavar="NAME=N...", callback=_numbers)
@option("--json", "as_json", is_flag=True, help="Print JSON: by role what was asked for; null for auto.")
@either_option
def scale(numbers: dict[str, int | None], coordinator: str | None, output: Path | None, as_json: bool) -> int:
    """Have N workers of a teacher group, or N student nodes, in a job that runs.

    NAME is the teacher's name in the job file, or student. The job file bounds both: replicas: {min: 1,
    max: 8} and nnodes: "1:4". NAME=auto lets the coordinator decide again (teachers), or the job file
    (student). Who is too many leaves as on SIGTERM: workers give back what they hold, nodes save.

    \b
    edldist scale teacher=8
    edldist scale teacher=auto student=2 --output out/digits
    """
    coordinator, output = coordinator_or_folder(coordinator, output)
    if coordinator is not None:
        return _tell(coordinator, numbers, as_json)
    job = chosen_job(output)
    job.backend.scale(numbers)
    if as_json:
        print(json.dumps({name: {"asked": number} for name, number in numbers.items()}))
    else:
        print(", ".join(f"{name}: {_words(number)}" for name, number in numbers.items()))
    return 0


def _tell(coordinator: str, numbers: dict[str, int | None], as_json: bool) -> int:
    """Ask the coordinator alone: it knows teacher groups, and no nodes."""
    import contextlib

    from edldist.wire.query import StatusClient

    told = {}
    with contextlib.closing(StatusClient(coordinator)) as client:
        for name, number in numbers.items():
            group = client.scale(name, number).group
            told[name] = {"asked": number, "workers": group.workers, "wanted": group.wanted}
            if as_json:
                continue
            wanted = "nobody knows yet how many" if group.wanted is None else group.wanted
            print(f"{name}: {_words(number)}; {group.workers} here, {wanted} wanted")
    if as_json:
        print(json.dumps(told))
    return 0


def _words(number: int | None) -> str:
    return "as the job decides" if number is None else f"{number}"
