"""A job file as this machine would run it: overrides applied, paths found, numbers counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edldist.config import JobConfig, load_job
from edldist.errors import ConfigError
from edldist_launch.machine.rank_count import rank_count
from edldist_launch.machine.room import check_room
from edldist_launch.plan.paths import check_weights, resolve_paths
from edldist_launch.plan.plan import Plan

__all__ = ["Load", "resolve_job", "spare_the_job_file"]

Load = Callable[[Path, Sequence[str]], JobConfig]


def resolve_job(job_path: Path, overrides: Sequence[str], load: Load = load_job) -> JobConfig:
    """The job to run.

    Args:
        load: reads the file.

    Raises:
        ConfigError: the job file or a path in it is wrong, or this machine has no room for so many processes.
    """
    job = resolve_paths(load(job_path, overrides), job_path)
    if job.prepare is None:  # which may make them
        check_weights(job, job_path.absolute().parent)
    ranks = rank_count(job.student.nproc_per_node, "student.nproc_per_node")
    job = job.model_copy(update={"student": job.student.model_copy(update={"nproc_per_node": ranks})})
    check_room(Plan(job, job_path.absolute().parent, Path()).processes)
    return job


def spare_the_job_file(job_path: Path, output: Path) -> None:
    """Refuse a folder whose ``job.yaml`` is the job file itself, which the resolved job would replace.

    Raises:
        ConfigError: it is.
    """
    recorded = output / "job.yaml"
    if recorded.exists() and recorded.samefile(job_path) and not (output / "events.jsonl").exists():
        raise ConfigError(
            f"--output {output} is the folder of the job file, and its job.yaml would be replaced by the "
            "resolved job: choose another folder, as in --output out"
        )
