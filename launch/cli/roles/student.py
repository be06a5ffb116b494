"""``edldist student``: a training script on this node."""

from __future__ import annotations

import os
from typing import Any

import click

from edldist.bounds import LONGEST_WAIT_S, MOST, MOST_PRIORITY, MOST_RANKS_A_NODE, MOST_WEIGHT
from edldist.grace import STUDENT_S
from edldist_launch.cli.options.begin import begin
from edldist_launch.cli.options.option_types import WAIT_S, Ranks, Seconds
from edldist_launch.cli.options.options import (
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
@option(
    "--grace-s",
    type=Seconds(min=0, max=LONGEST_WAIT_S),
    default=STUDENT_S,
    help="Time for the ranks to save and to end when asked to stop; less than whoever asks them waits "
    "before it kills.",
)
@option(
    "--extend",
    is_flag=True,
    help="Go on from the last checkpoint, though another teacher labelled for it.",
)
@option(
    "--weight",
    type=click.IntRange(min=1, max=MOST_WEIGHT),
    metavar="N",
    help="Its part of teacher workers that it shares with other jobs, relative to their weights.",
)
@option(
    "--priority",
    type=click.IntRange(min=-MOST_PRIORITY, max=MOST_PRIORITY),
    metavar="N",
    help="Among jobs that share teacher workers, those of a higher priority come first (default: 0).",
)
@option(
    "--resize",
    type=click.Choice(["restart", "live"]),
    default="restart",
    help="When a rank dies, leaves or joins: torchrun starts all again from the last checkpoint; or (live) "
    "those that are here go on in process, by a script that iterates over an edldist.LiveGroup.",
)
@option("--connect-timeout-s", type=WAIT_S, default=300.0, help="How long to look for a coordinator.")
@http_option
@import_from_option
@click.argument("script", type=click.Path())
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def student(script: str, args: tuple[str, ...], import_from: str | None, **settings: Any) -> int:
    """Run a training SCRIPT under torchrun on this node; ARGS are passed through to it.

    With a range of nodes, start the same command on each of them; nodes may come and go.

    Exit codes: 0 done, 1 the script failed, 2 an option is wrong, 143 asked to stop before that, and started
    again it goes on, 130 the same where somebody insisted.
    """
    from edldist_launch.node.student import run_student
    from edldist_launch.process.importing import add_to_environment

    add_to_environment(os.environ, *import_places(import_from))
    begin("student")
    return run_student(script=script, args=args, **settings)
