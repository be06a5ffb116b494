"""From the record of a job to the engine that runs it. Engines are imported only when a job is theirs."""

from __future__ import annotations

from pathlib import Path

from edldist.errors import LaunchError
from edldist_launch.contract.backend import Backend
from edldist_launch.contract.submission import Submission

__all__ = ["backend_of"]


def backend_of(submission: Submission, output: Path) -> Backend:
    """The engine of a job that was handed to one.

    Args:
        output: the job's folder, in which the submission lies.

    Raises:
        LaunchError: this version has no such engine.
    """
    if submission.backend == "local":
        from edldist_launch.local.backend import LocalBackend

        return LocalBackend(output)
    if submission.backend == "kubernetes":
        from edldist_launch.kubernetes.backend import KubernetesBackend

        return KubernetesBackend(output)
    if submission.backend == "slurm":
        from edldist_launch.slurm.backend import SlurmBackend

        return SlurmBackend(output)
    raise LaunchError(f"{output} was submitted to {submission.backend}, which this version cannot reach")
