"""The folder of a job that is handed to a cluster."""

from __future__ import annotations

from pathlib import Path

from edldist.errors import LaunchError
from edldist_launch.contract.submission import find_submission
from edldist_launch.job.found import find_job
from edldist_launch.record.folder import OUTPUTS
from edldist_launch.view.console import output_option

__all__ = ["submission_folder"]


def submission_folder(name: str, output: Path | None) -> Path:
    """Where the job's record goes: ``output``, or the default for its name.

    Raises:
        LaunchError: a job that goes on is recorded there, or its engine cannot tell whether it does.
    """
    folder = output or OUTPUTS / name
    if find_submission(folder) is not None and (job := find_job(folder)).goes_on:
        raise LaunchError(
            f"a job runs in {folder} ({job.submission.job}, on {job.submission.backend}): stop it first "
            f"(edldist stop {output_option(folder)}), or choose another --output"
        )
    return folder
