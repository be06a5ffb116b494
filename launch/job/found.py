"""Which job a command means: that of a folder, or the newest one that runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edldist.errors import ConfigError, LaunchError
from edldist_launch.contract.backend import Backend
from edldist_launch.contract.submission import Submission, find_submission
from edldist_launch.job.engines import backend_of
from edldist_launch.record.folder import OUTPUTS
from edldist_launch.view.console import output_option

__all__ = ["FoundJob", "find_job", "newest_job"]

GOING_ON = ("pending", "running", "leaving")


@dataclass(frozen=True)
class FoundJob:
    """A job, its folder and its engine."""

    output: Path
    submission: Submission
    backend: Backend

    @property
    def goes_on(self) -> bool:
        """Whether it has not ended.

        Raises:
            LaunchError: its engine cannot tell.
        """
        return self.backend.state().phase in GOING_ON


def find_job(output: Path) -> FoundJob:
    """The job of a folder.

    Raises:
        ConfigError: no job was started or submitted there.
    """
    submission = find_submission(output)
    if submission is None:
        raise ConfigError(
            f"--output {output}: no job was started there (no submission.json in it); edldist run "
            f"{output_option(output)} JOB starts one"
        )
    return FoundJob(output, submission, backend_of(submission, output))


def newest_job(places: Path = OUTPUTS, *, ended_too: bool = False) -> FoundJob:
    """The job in the folders below ``places`` that began last and has not ended.

    Args:
        ended_too: take one that has ended, where none goes on; but none that is older than a job of which its
            engine does not tell whether it does.

    Raises:
        ConfigError: there is none; says what there is.
    """
    silent: list[str] = []
    ended: list[FoundJob] = []
    newest_ended: FoundJob | None = None
    for job in sorted(_jobs(places), key=lambda each: each.submission.submitted_at, reverse=True):
        try:
            if job.goes_on:
                return job
        except LaunchError as exc:
            silent.append(f"{job.output}: {exc}")
            continue
        ended.append(job)
        if newest_ended is None and not silent:
            newest_ended = job
    if ended_too and newest_ended is not None:
        return newest_ended
    has_ended = f"those in {places} have ended: " + ", ".join(str(job.output) for job in ended[:3])
    found = "; ".join([*silent, *([has_ended] if ended else [])]) or f"there is no job in {places}"
    raise ConfigError(f"no job runs here ({found}): name its folder by --output DIR")


def _jobs(places: Path) -> Iterator[FoundJob]:
    for record in places.glob("*/submission.json"):
        try:
            yield find_job(record.parent)
        except (ConfigError, LaunchError):  # a record that cannot be read is of no job that runs
            continue
