"""``edldist wait``: until the students of a job have ended."""

from __future__ import annotations

from pathlib import Path

import click

from edldist_launch.cli.options.begin import begin
from edldist_launch.cli.options.option_types import Seconds
from edldist_launch.cli.options.options import coordinator_option, option

__all__ = ["wait"]


@click.command()
@coordinator_option
@option("--every-s", type=Seconds(min=0.1, max=3600), default=3.0, help="How often to ask.")
@option(
    "--given-up-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="File that appears if what has to be prepared for the students cannot be: the end, too.",
)
def wait(coordinator: str, every_s: float, given_up_file: Path | None) -> int:
    """Wait until the students of a job have ended, and say how.

    A node that was asked to leave, or is lost, is not the end; that there is no coordinator, for however
    long, is none either.
    """
    from edldist_launch.view.end_watch import await_end

    begin("wait")
    print(f"the students have ended ({await_end(coordinator, every_s, given_up_file)})", flush=True)
    return 0
