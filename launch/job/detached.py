"""``edldist run --detach``: a job on this machine that goes on when its terminal is closed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edldist.config import load_job
from edldist_launch.job.resolve import Load, resolve_job, spare_the_job_file
from edldist_launch.job.submitting import refuse_taken_by_a_cluster, shown_as_finished
from edldist_launch.local.backend import LocalBackend
from edldist_launch.plan.plan import Plan
from edldist_launch.record.earlier import Beginning
from edldist_launch.record.folder import OUTPUTS, free_folder
from edldist_launch.view.console import PlainConsole, near, output_option

__all__ = ["start_detached"]


def start_detached(
    job_path: Path,
    overrides: Sequence[str],
    output: Path | None,
    beginning: Beginning,
    load: Load = load_job,
) -> int:
    """Start a job in the background, and say where; one that is finished there is shown, and not started.

    Args:
        load: reads the file; the others as in ``run_job``.

    Raises:
        ConfigError: the job is refused.
        LaunchError: a job runs in that folder, or it did not start.
    """
    job = resolve_job(job_path, overrides, load)
    if output is not None:
        spare_the_job_file(job_path, output)
    output = (output or free_folder(OUTPUTS, job, beginning)).absolute()
    refuse_taken_by_a_cluster(output)
    console = PlainConsole()
    if shown_as_finished(job, output, beginning, console):
        return 0
    LocalBackend(output, beginning).start(Plan(job, job_path.absolute().parent, output))
    option = output_option(output)
    console.print(
        f"job {job.name} runs, output: {near(output)}\n"
        f"its progress: edldist status --watch {option}   its logs: edldist logs --follow {option}   "
        f"its end: edldist stop {option}",
        soft_wrap=True,
    )
    return 0
