"""A job file handed to a Slurm cluster: ``edldist submit slurm`` and ``edldist render slurm``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edldist.config import JobConfig, load_job
from edldist_launch.contract.submission import find_submission
from edldist_launch.job.resolve import Load, spare_the_job_file
from edldist_launch.job.submitting import refuse_taken, shown_as_finished
from edldist_launch.plan.paths import check_weights, resolve_paths
from edldist_launch.plan.plan import Plan
from edldist_launch.record.earlier import Beginning
from edldist_launch.record.folder import OUTPUTS, default_folders
from edldist_launch.slurm.backend import SlurmBackend, scripts_of, submission_options, surroundings
from edldist_launch.slurm.commands import Slurm
from edldist_launch.slurm.layout import Layout
from edldist_launch.view.console import PlainConsole, near, output_option

__all__ = ["render_for_slurm", "submit_to_slurm"]


@dataclass(frozen=True)
class _Asked:
    """What a command line asks for: a job file, and the folder for it."""

    job: JobConfig
    beside: Path
    output: Path


def submit_to_slurm(
    job_path: Path,
    overrides: Sequence[str],
    output: Path | None,
    beginning: Beginning = "resume",
    slurm: Slurm | None = None,
    dry_run: bool = False,
    load: Load = load_job,
) -> int:
    """Queue a whole job, and say where it is; 0.

    Args:
        job_path: the job file.
        overrides: ``key=value``, see ``load_job``.
        output: the folder for everything written, which all hosts see; None for the default of this job.
        beginning: what becomes of an earlier run in that folder.
        dry_run: only ask Slurm whether it would take the job, and print its words.
        load: reads the file.

    Raises:
        ConfigError: the job file or the folder is wrong; nothing was queued.
        LaunchError: the job runs already, or Slurm refuses it; nothing of it is left in the queue.
    """
    asked = _asked(job_path, overrides, output, beginning, load)
    backend = SlurmBackend(asked.output, beginning, slurm)
    plan = Plan(asked.job, asked.beside, asked.output, extend=beginning == "extend")
    console = PlainConsole()
    if dry_run:
        for line in backend.try_out(plan):
            console.print(line, soft_wrap=True)
        return 0
    backend.check_absent(plan)
    if shown_as_finished(asked.job, asked.output, beginning, console):
        return 0
    backend.start(plan)
    for role in backend.state().roles:
        ids = ", ".join(dict.fromkeys(process.engine_id.partition("_")[0] for process in role.processes))
        count = len(role.processes)
        console.print(f"{role.name}: Slurm job {ids or 'none'}{f', {count} tasks' if count > 1 else ''}")
    option = output_option(asked.output)
    console.print(
        f"job {plan.name} is queued, output: {near(asked.output)}\n"
        f"its progress: edldist status --watch {option}   its logs: edldist logs --follow {option}   "
        f"its end: edldist stop {option}",
        soft_wrap=True,
    )
    return 0


def render_for_slurm(
    job_path: Path,
    overrides: Sequence[str],
    output: Path | None,
    beginning: Beginning = "resume",
    load: Load = load_job,
) -> str:
    """The job scripts that ``submit`` would write and queue, each below the command that would queue it.

    Raises:
        ConfigError: the job file or the folder is wrong.
    """
    asked = _asked(job_path, overrides, output, beginning, load)
    plan = Plan(asked.job, asked.beside, asked.output, extend=beginning == "extend")
    layout = Layout.of(plan)
    parts = []
    for role, text in scripts_of(plan, surroundings(plan)):
        options = submission_options(plan, role, {kind: f"<{kind}>" for kind in ("prepare", "coordinator")})
        path = layout.script(role.kind, role.name)
        command = "not queued at first:" if options is None else " ".join(("sbatch --parsable", *options))
        parts.append(f"### {command} {shlex.quote(str(path))}\n{text}")
    return "\n".join(parts)


def _asked(
    job_path: Path, overrides: Sequence[str], output: Path | None, beginning: Beginning, load: Load
) -> _Asked:
    job = resolve_paths(load(job_path, overrides), job_path)
    beside = job_path.absolute().parent
    if job.prepare is None:  # which may make them
        check_weights(job, beside)
    if output is not None:
        spare_the_job_file(job_path, output)
    folder = output or next(default_folders(OUTPUTS, job, beginning))
    submission = find_submission(folder)
    if submission is not None and submission.backend != "slurm":
        refuse_taken(folder)  # of this engine's own jobs the backend knows more
    return _Asked(job, beside, folder.absolute())
