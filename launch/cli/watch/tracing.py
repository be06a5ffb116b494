"""``edldist trace``: the life of a job's batches, across its processes, as one file."""

from __future__ import annotations

from pathlib import Path

import click

from edldist_launch.cli.options.jobs import coordinator_that_runs
from edldist_launch.cli.options.option_types import COORDINATOR, Seconds
from edldist_launch.cli.options.options import option

__all__ = ["trace"]

LONGEST_S, MOST_SAMPLE = 60.0, 1_000_000


@click.command()
@click.argument(
    "folder", required=False, type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="[DIR]"
)
@option("--coordinator", type=COORDINATOR, metavar="URL", help="The address of the job's coordinator.")
@option(
    "--seconds",
    type=Seconds(min=0, min_open=True, max=LONGEST_S),
    default=5.0,
    metavar="S",
    help="For how long the job's processes record.",
)
@option(
    "--sample",
    type=click.IntRange(1, MOST_SAMPLE),
    default=None,
    metavar="N",
    help="Follow one task in N (default: all, or as few as cost next to nothing); what batches, passes and "
    "messages do is recorded of all.",
)
@option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("trace.json"),
    metavar="FILE",
    help="The file to write.",
)
def trace(
    folder: Path | None, coordinator: str | None, seconds: float, sample: int | None, output: Path
) -> int:
    """Record for a few seconds what a running job does, and write it as one picture.

    Students and teachers record what becomes of each batch: read, queued, leased, sent, received, batched,
    computed stage by stage, returned, placed, delivered, and the loop's step with it; and when somebody waits
    for somebody. The file is for https://ui.perfetto.dev or chrome://tracing. The job goes on as ever.

    DIR is the output folder of the job (default: the newest job in ./out that runs).

    \b
    edldist trace --seconds 5
    edldist trace out/digits --sample 10 --output /tmp/trace.json
    """
    coordinator = coordinator_that_runs(coordinator, folder, "DIR")
    from edldist_launch.view.traces import write_trace

    return write_trace(coordinator, seconds, sample, output)
