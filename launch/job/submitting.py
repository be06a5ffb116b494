"""The folder of a job that is about to begin: no other one may go on in it, on whichever engine."""

from __future__ import annotations

from pathlib import Path

from edldist.config import JobConfig
from edldist.errors import LaunchError
from edldist_launch.contract.submission import find_submission
from edldist_launch.job.found import find_job
from edldist_launch.record.earlier import Beginning, EarlierRun
from edldist_launch.record.folder import OUTPUTS
from edldist_launch.view.console import PlainConsole, near, output_option
from edldist_launch.view.progress import show_finished

__all__ = ["refuse_taken", "refuse_taken_by_a_cluster", "shown_as_finished", "submission_folder"]


def refuse_taken(folder: Path) -> None:
    """Refuse a folder in which a job goes on.

    Raises:
        LaunchError: one does, or its engine cannot tell whether it does.
    """
    submission = find_submission(folder)
    if submission is None:
        return
    job = find_job(folder)
    try:
        goes_on = job.goes_on
    except LaunchError as exc:
        raise LaunchError(
            f"{near(folder)} has a job that was submitted to {submission.backend} ({submission.job}), which "
            f"does not say whether it still runs: {exc}. Ask again where it does, or choose another --output"
        ) from exc
    if goes_on:
        raise LaunchError(
            f"a job runs in {near(folder)} ({job.submission.job}, on {job.submission.backend}): stop it "
            f"first (edldist stop {output_option(folder)}), or choose another --output"
        )


def refuse_taken_by_a_cluster(folder: Path) -> None:
    """The same for whoever takes the folder's lock: a job on a machine holds that, one on a cluster does not.

    Raises:
        LaunchError: a job goes on there, or its engine cannot tell whether it does.
    """
    submission = find_submission(folder)
    if submission is not None and submission.backend != "local":
        refuse_taken(folder)


def shown_as_finished(job: JobConfig, folder: Path, beginning: Beginning, console: PlainConsole) -> bool:
    """Whether this very job has come to its end in a folder, which is shown then: there is nothing to start.

    Raises:
        ConfigError: another one has, or its record cannot be read.
    """
    earlier = EarlierRun.read(folder)
    if earlier is None or beginning != "resume" or not earlier.finished or earlier.result is None:
        return False
    earlier.check(job, folder, beginning)
    show_finished(console, folder, earlier.result)
    return True


def submission_folder(name: str, output: Path | None) -> Path:
    """Where the record of a job for Kubernetes goes: ``output``, or the default for its name.

    Raises:
        LaunchError: a job that goes on is recorded there, or its engine cannot tell whether it does.
    """
    folder = output or OUTPUTS / name
    refuse_taken(folder)
    return folder
