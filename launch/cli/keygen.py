"""``edldist keygen``: makes, adds, rotates and retires a job's keys."""

from __future__ import annotations

from pathlib import Path

import click

from edldist_launch.cli.options.option_types import Seconds
from edldist_launch.cli.options.options import option

__all__ = ["keygen"]

_HOUR_S = 3600.0
_MOST_HOURS = 24.0 * 365


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@option(
    "--add",
    metavar="ROLE:NAME",
    help="Add one more key of a role, for a machine or a person: ROLE-NAME.key.",
)
@option("--rotate", is_flag=True, help="Replace each key by a new one; the former ones count for a while.")
@option(
    "--keep-hours",
    type=Seconds(min=0, max=_MOST_HOURS),
    default=24.0,
    help="For how long the former keys count after --rotate.",
)
@option("--retire", is_flag=True, help="Let the former keys count no more, now.")
def keygen(folder: Path, add: str | None, rotate: bool, keep_hours: float, retire: bool) -> None:
    """Make the keys of a job in FOLDER: one pair for each role, and the list of all that are public.

    Give each machine known.json and the key of its role, and start everything with --keys FOLDER (or
    EDLDIST_KEYS): then both ends of every connection prove who they are, and what they say is sealed.

    Exit codes: 0 done, 2 usage or configuration.
    """
    if sum((add is not None, rotate, retire)) > 1:
        raise click.UsageError("--add, --rotate and --retire are three things: ask for one at a time.")
    from edldist.keys.folder import KNOWN, KeyFolder

    keys = KeyFolder(folder)
    if add is not None:
        role, colon, name = add.partition(":")
        if not colon:
            raise click.UsageError(f"--add {add}: use ROLE:NAME, such as teacher:alice.")
        pair = keys.add(role, name)
        click.echo(
            f"{folder / f'{role}-{pair.name}.key'}: for one {role}, as the only key of that role there"
        )
        click.echo(f"{folder / KNOWN}: for every machine; processes that run read the new one by themselves")
    elif rotate:
        pairs = keys.rotate(keep_hours * _HOUR_S)
        hours = "1 hour" if keep_hours == 1 else f"{keep_hours:g} hours"
        click.echo(f"{folder}: {len(pairs)} new keys; the former ones count for {hours} more")
        click.echo("copy the files to the machines that have copies: nothing has to stop")
    elif retire:
        count = keys.retire()
        click.echo(f"{count} former keys in {folder} count no more, wherever the new {KNOWN} is")
    else:
        for pair in keys.make():
            click.echo(f"{folder / f'{pair.role}.key'}: {_WHO[pair.role]}")
        click.echo(f"{folder / KNOWN}: for every machine; it holds no secret")


_WHO = {
    "coordinator": "for the coordinator's machine",
    "teacher": "for machines of teacher workers",
    "student": "for machines of students",
    "operator": "for people and launchers: status, scale, logs, stop",
}
