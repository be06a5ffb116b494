"""``edldist student``: a training script on this node."""

from __future__ import annotations

import os
from typing import Any

import click

from edldist.bounds import MOST, MOST_RANKS_A_NODE
from edldist_launch.cli.begin import begin
from edldist_launch.cli.option_types import WAIT_S, Ranks
from edldist_launch.cli.options import (
    coordinator_option,
    http_option,
    import_from_option,
    import_places,
    option,
)

__all__ = ["student"]


@click.command(context_settings={"allow_interspersed_args": False})
@coordinator_option
@option("--nnodes", default="1", help='Nodes, as in "1", or a range, as in "1:4".')
@option(
    "--nproc-per-node",
    type=Ranks(min=1, max=MOST_RANKS_A_NODE),
    metavar="N",
    default=1,
    help="Ranks on this node; gpu: as many as it has GPUs; auto: the same, or its cores where it has none.",
)
@option(
    "--max-restarts",
    type=click.IntRange(min=0, max=MOST),
    default=3,
    help="Restarts in a row without progress.",
)
@option(
    "--run-id",
    metavar="ID",
    help="Nodes of one run share it; a new run needs a new one "
    "(default: made of the command and the job's folder, the same for nodes that start the same).",
)
@option("--connect-timeout-s", type=WAIT_S, default=300.0, help="How long to look for a coordinator.")
@http_option
@import_from_option
@click.argument("script", type=click.Path())
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def student(script: str, args: tuple[str, ...], import_from: str | None, **settings: Any) -> int:
    """Run a training SCRIPT under torchrun on this node; ARGS are passed through to it.

    With a range of nodes, start the same command on each of them; nodes may come and go.
    """
    from edldist_launch.node.student import run_student
    from edldist_launch.process.importing import add_to_environment

    add_to_environment(os.environ, *import_places(import_from))
    begin("student")
    return run_student(script=script, args=args, **settings)
