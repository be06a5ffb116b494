"""``edldist run --dry-run``: what a run would do, as a job file that says the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edldist.bounds import node_range
from edldist.config import dump_job, load_job
from edldist_launch.job.factories import check_factories
from edldist_launch.job.resolve import Load, resolve_job, spare_the_job_file
from edldist_launch.job.submitting import refuse_taken_by_a_cluster
from edldist_launch.record.earlier import Beginning, EarlierRun, differences
from edldist_launch.record.folder import OUTPUTS, default_folders
from edldist_launch.view.console import near

__all__ = ["describe_run"]


def describe_run(
    job_path: Path,
    overrides: Sequence[str],
    output: Path | None,
    beginning: Beginning,
    load: Load = load_job,
) -> str:
    """The resolved job in YAML, below comments that say where it would run and what it would start.

    Models and data sets are looked for, in a process of their own; with a preparation, which may make them,
    they are not.

    Args:
        load: reads the file; the others as in ``run_job``.

    Raises:
        ConfigError, LaunchError: the run would be refused; nothing was written either way.
    """
    job = resolve_job(job_path, overrides, load)
    if output is not None:
        spare_the_job_file(job_path, output)
    folder = (output or next(default_folders(OUTPUTS, job, beginning))).absolute()
    refuse_taken_by_a_cluster(folder)
    nodes = node_range(job.student.nnodes)[1]
    workers = ", ".join(f"{teacher.initial_replicas} of {teacher.name}" for teacher in job.served)
    lines = [
        f"output: {near(folder)}",
        f"teacher workers: {workers or 'none: all labels come from the store'}",
        f"student ranks: {nodes * job.student.ranks} ({nodes} x {job.student.ranks})",
    ]
    if job.prepare is None:
        lines += check_factories(job, job_path.absolute().parent)
    earlier = EarlierRun.read(folder)
    if earlier is not None:
        earlier.check(job, folder, beginning)
        lines.append(f"earlier run in that folder: {_fate(earlier, beginning)}")
        lines += [f"changed since then: {difference}" for difference in differences(earlier.job, job)]
    comments = "".join(f"# {' '.join(line.split())}\n" for line in lines)
    return f"{comments}{dump_job(job)}"


def _fate(earlier: EarlierRun, beginning: Beginning) -> str:
    if beginning == "fresh":
        return "moved into earlier-N there"
    if earlier.finished and beginning == "resume":
        return "finished; nothing would be started"
    if earlier.checkpoint is None:
        return "gone on with from the beginning, as it left no checkpoint"
    return f"gone on with from its checkpoint of step {earlier.checkpoint}"
