"""``edldist stop``: end a job."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edldist.bounds import LONGEST_WAIT_S
from edldist_launch.cli.options.jobs import chosen_job, job_option
from edldist_launch.cli.options.option_types import Seconds
from edldist_launch.cli.options.options import option

if TYPE_CHECKING:
    from edldist_launch.contract.backend import JobState

__all__ = ["stop"]


@click.command()
@job_option
@option(
    "--grace-s",
    type=Seconds(min=0, max=LONGEST_WAIT_S),
    help="Seconds that the students have to save a checkpoint before they are killed (default: as the job "
    "says).",
)
@option("--json", "as_json", is_flag=True, help="Print JSON: which job, and how it ended.")
def stop(output: Path | None, grace_s: float | None, as_json: bool) -> int:
    """End a job: its students save a checkpoint and leave, then its workers, then its coordinator.

    Returns when nothing of it is left: of a job that has ended, too, a cluster may still hold something. The
    same command that began the job goes on with it from there.
    """
    job = chosen_job(output)
    already = not job.goes_on
    if not already:
        print("its students save a checkpoint and leave", file=sys.stderr)
    job.backend.stop(grace_s)
    state = job.backend.state()
    if as_json:
        told = {"job": job.submission.job, "output": str(job.output.absolute()), "ended_already": already}
        print(json.dumps({**told, "phase": state.phase, "reason": state.reason}))
    else:
        word = " already" if already else ""
        print(f"job {job.submission.job} of {job.output} has ended{word} ({_end(state)})")
    return 0


def _end(state: JobState) -> str:
    return f"{state.phase}: {state.reason}" if state.reason else state.phase
