"""The processes of a job: their names, command lines and environments."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from edldist.bounds import node_range
from edldist.config import CoordinatorConfig, JobConfig, TeacherConfig, dump_argument

__all__ = [
    "coordinator_command",
    "inherited_environment",
    "own_command",
    "processes_of",
    "student_command",
    "student_environment",
    "student_nodes",
    "teacher_command",
    "teacher_names",
]

_MAIN = Path(__file__).parents[1] / "__main__.py"

# What a person may set for every process of a job; other EDLDIST_ variables name options of the
# command that reads them, and must not leak from `edldist run` into its children.
PASSED_ON = ("EDLDIST_ADVERTISE", "EDLDIST_CONNECT_TIMEOUT_S", "EDLDIST_LOG_LEVEL")


def own_command(*args: str) -> list[str]:
    """Run a command of this very installation."""
    return [sys.executable, str(_MAIN), *args]


def inherited_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What every child gets: this process's variables, and unbuffered output."""
    kept = {
        key: value for key, value in environment.items() if not key.startswith("EDLDIST_") or key in PASSED_ON
    }
    kept.setdefault("PYTHONUNBUFFERED", "1")
    return kept


def coordinator_command(
    config: CoordinatorConfig, bind: str, http: str, ready_file: Path | None
) -> list[str]:
    """A coordinator that writes where it listens to ``ready_file``, if somebody waits for that."""
    ttl_s = config.heartbeat_ttl_s
    ready = () if ready_file is None else ("--ready-file", str(ready_file))
    return own_command(
        *("coordinator", "--bind", bind, "--http", http),
        *("--heartbeat-ttl-s", repr(ttl_s), "--heartbeat-interval-s", repr(min(1.0, ttl_s / 3))),
        *("--max-students-per-worker", str(config.max_students_per_worker), *ready),
    )


def teacher_names(job: JobConfig) -> dict[str, TeacherConfig]:
    """The workers to start: ``<teacher>-<k>`` and what each of them serves.

    Workers whose device is ``auto`` are numbered over the whole job: they spread over the accelerators.
    """
    workers: dict[str, TeacherConfig] = {}
    automatic = 0
    for teacher in job.teachers:
        for number in range(teacher.initial_replicas):
            own = teacher
            if teacher.device == "auto":
                own = teacher.model_copy(update={"device": f"auto:{automatic}"})
                automatic += 1
            workers[f"{teacher.name}-{number}"] = own
    return workers


def teacher_command(teacher: TeacherConfig, worker_id: str, coordinator: str, beside: Path) -> list[str]:
    """One worker. Every option is given, so that no variable of the user's decides.

    Args:
        beside: the folder of the job file.
    """
    return own_command(
        *("teacher", "--import-from", str(beside)),
        *("--coordinator", coordinator, "--id", worker_id, "--name", teacher.name),
        *("--model", teacher.model, "--device", teacher.device),
        *(
            each
            for name in teacher.kwargs
            for each in ("--model-arg", dump_argument(name, teacher.kwargs[name]))
        ),
        *("--batch-size", str(teacher.batch_size), "--codec", teacher.codec),
        *(("--weights", teacher.weights) if teacher.weights is not None else ()),
        *(("--outputs", ",".join(teacher.outputs)) if teacher.outputs is not None else ()),
        *("--model-version", teacher.version),
        "--allow-nonfinite" if teacher.allow_nonfinite else "--refuse-nonfinite",
        "--compile" if teacher.compile else "--no-compile",
        *(("--autocast", teacher.autocast) if teacher.autocast is not None else ()),
        "--channels-last" if teacher.channels_last else "--no-channels-last",
        *_dataset_options(teacher),
    )


def _dataset_options(teacher: TeacherConfig) -> list[str]:
    if teacher.dataset is None:
        return []
    options = ["--dataset", teacher.dataset, "--dataset-threads", str(teacher.dataset_threads)]
    if teacher.dataset_inputs is not None:
        options += ["--dataset-inputs", ",".join(str(entry) for entry in teacher.dataset_inputs)]
    return options


def student_nodes(job: JobConfig) -> list[str]:
    """The nodes to start on this machine: as many as the job may have."""
    return [str(number) for number in range(node_range(job.student.nnodes)[1])]


def student_command(job: JobConfig, coordinator: str, beside: Path) -> Sequence[str]:
    """One node of the training script's process group; ``beside`` is the folder of the job file."""
    student = job.student
    return own_command(
        *("student", "--import-from", str(beside)),
        *("--coordinator", coordinator, "--nnodes", student.nnodes),
        *("--nproc-per-node", str(student.nproc_per_node), "--max-restarts", str(student.max_restarts)),
        *(student.script, *student.args),
    )


def student_environment(job: JobConfig, coordinator: str, output: Path) -> dict[str, str]:
    """What the training script finds, see docs/architecture.md."""
    variables = {
        "EDLDIST_COORDINATOR": coordinator,
        "EDLDIST_OUTPUT": str(output),
        "EDLDIST_JOB": job.name,
        "EDLDIST_CHECKPOINT_KEEP": str(job.checkpoint.keep),
    }
    if job.checkpoint.every_steps is not None:
        variables["EDLDIST_CHECKPOINT_EVERY_STEPS"] = str(job.checkpoint.every_steps)
    variables["EDLDIST_ON_POISON"] = job.on_poison
    variables["EDLDIST_HEARTBEAT_TTL_S"] = repr(job.coordinator.heartbeat_ttl_s)
    if job.deterministic:
        variables["EDLDIST_DETERMINISTIC"] = "1"
        variables["EDLDIST_TASK_SIZE"] = str(job.task_size)
    return variables | job.student.env


def processes_of(job: JobConfig) -> dict[str, int]:
    """How many processes a whole job starts on one machine, by the keys that ask for them."""
    nodes, ranks = len(student_nodes(job)), job.student.ranks
    asked = f"student (nnodes: {job.student.nnodes}, nproc_per_node: {ranks})"
    return {
        **{f"teachers[{n}].replicas": teacher.initial_replicas for n, teacher in enumerate(job.teachers)},
        asked: nodes * ranks,
    }
