"""The command lines and environments of a job's processes, wherever they run.

Every command begins with a *launcher*: the words that start ``edldist`` there (this very installation,
another interpreter on a cluster's nodes, the console script in an image).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from edldist.config import (
    JobConfig,
    ReplicaRange,
    ScriptConfig,
    StoreConfig,
    StudentConfig,
    TeacherConfig,
    dump_argument,
)
from edldist.config.resources import memory_bytes
from edldist.grace import DRAIN_S, STUDENT_S
from edldist.labeller import VARIABLE as LABEL_VARIABLE
from edldist.labeller import labels_ahead
from edldist.reference import is_factory

__all__ = [
    "coordinator_command",
    "inherited_environment",
    "own_command",
    "own_launcher",
    "prepare_command",
    "student_command",
    "student_environment",
    "teacher_command",
    "wait_command",
]

_MAIN = Path(__file__).parents[1] / "__main__.py"

# What a person may set for every process of a job; other EDLDIST_ variables name options of the
# command that reads them, and must not leak from `edldist run` into its children.
PASSED_ON = (
    *("EDLDIST_ADVERTISE", "EDLDIST_CONNECT_TIMEOUT_S", "EDLDIST_LOG_LEVEL", "EDLDIST_LOG_JSON"),
    *("EDLDIST_KEYS", "EDLDIST_INSECURE"),
)


def own_launcher() -> list[str]:
    """Starts this very installation."""
    return [sys.executable, str(_MAIN)]


def own_command(*args: str) -> list[str]:
    """A command of this very installation."""
    return [*own_launcher(), *args]


def inherited_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What every child gets: this process's variables, and unbuffered output."""
    kept = {
        key: value for key, value in environment.items() if not key.startswith("EDLDIST_") or key in PASSED_ON
    }
    kept.setdefault("PYTHONUNBUFFERED", "1")
    return kept


def coordinator_command(
    launcher: Sequence[str],
    job: JobConfig,
    bind: str,
    http: str,
    *,
    address_file: Path | None = None,
    history_file: Path | None = None,
    stages_file: Path | None = None,
    output: Path | None = None,
    job_file: Path | None = None,
) -> list[str]:
    """The coordinator, which scales every teacher group within its bounds.

    Args:
        bind: ``tcp://host:port`` where it listens.
        http: ``host:port`` of its status.
        address_file: to which it writes where it listens, if somebody waits for that.
        history_file: in which it keeps the course of the run, if not in ``output``.
        stages_file: to which it adds how long the stages of tasks took, if not in ``output``.
        output: folder for the job's record, if nobody else writes it.
        job_file: a copy of the job file, for that record.
    """
    config, ttl_s = job.coordinator, job.coordinator.heartbeat_ttl_s
    ready = () if address_file is None else ("--address-file", str(address_file))
    course = () if history_file is None else ("--history-file", str(history_file))
    stages = () if stages_file is None else ("--stages-file", str(stages_file))
    record = [] if output is None else ["--output", str(output)]
    record += [] if job_file is None else ["--job-file", str(job_file)]
    return [
        *(*launcher, "coordinator", "--bind", bind, "--http", http),
        *("--heartbeat-ttl-s", repr(ttl_s), "--heartbeat-interval-s", repr(min(1.0, ttl_s / 3))),
        *("--max-students-per-worker", str(config.max_students_per_worker)),
        *(each for teacher in job.served for each in ("--scale", _bounds(teacher))),
        *(*ready, *course, *stages, *record),
    ]


def _bounds(teacher: TeacherConfig) -> str:
    """``NAME=MIN:MAX``, with ``:START`` where the job says so; a number of workers that stands is both."""
    bounds = teacher.replicas
    if not isinstance(bounds, ReplicaRange):
        return f"{teacher.name}={bounds}:{bounds}"
    start = "" if bounds.start is None else f":{bounds.start}"
    return f"{teacher.name}={bounds.min}:{bounds.max}{start}"


def prepare_command(interpreter: str, config: ScriptConfig) -> list[str]:
    """The job's own preparation, with an interpreter that has edldist."""
    return [interpreter, "-u", config.script, *config.args]


def teacher_command(
    launcher: Sequence[str],
    teacher: TeacherConfig,
    worker_id: str,
    coordinator: str,
    beside: Path,
    http: str | None = None,
    drain_s: float = DRAIN_S,
    attempt: int | str = 0,
) -> list[str]:
    """One worker. Every option is given, so that no variable of the user's decides.

    Args:
        beside: the folder of the job file.
        http: ``HOST:PORT`` where it answers probes, or None for nowhere.
        drain_s: how long it may take to leave.
        attempt: how often a process was started under this id before, or a word that stands for it.
    """
    return [
        *(*launcher, "teacher", "--import-from", str(beside)),
        *("--coordinator", coordinator, "--id", worker_id, "--attempt", str(attempt), "--name", teacher.name),
        *("--model", teacher.model, "--device", teacher.device),
        *(
            each
            for name in teacher.kwargs
            for each in ("--model-arg", dump_argument(name, teacher.kwargs[name]))
        ),
        *("--batch-size", str(teacher.batch_size), "--codec", teacher.codec, "--drain-s", repr(drain_s)),
        *(("--weights", teacher.weights) if teacher.weights is not None else ()),
        *(("--outputs", ",".join(teacher.outputs)) if teacher.outputs is not None else ()),
        *(("--vocabulary", teacher.vocabulary) if teacher.vocabulary is not None else ()),
        *("--model-version", teacher.version),
        "--allow-nonfinite" if teacher.allow_nonfinite else "--refuse-nonfinite",
        "--compile" if teacher.compile else "--no-compile",
        *(("--autocast", teacher.autocast) if teacher.autocast is not None else ()),
        "--channels-last" if teacher.channels_last else "--no-channels-last",
        *_dataset_options(teacher),
        *(("--http", http) if http is not None else ()),
    ]


def _dataset_options(teacher: TeacherConfig) -> list[str]:
    if teacher.dataset is None:
        return []
    options = ["--dataset", teacher.dataset, "--dataset-threads", str(teacher.dataset_threads)]
    if teacher.dataset_inputs is not None:
        options += ["--dataset-inputs", ",".join(str(entry) for entry in teacher.dataset_inputs)]
    return options


def student_command(
    launcher: Sequence[str],
    student: StudentConfig,
    coordinator: str,
    beside: Path,
    http: str | None = None,
    grace_s: float = STUDENT_S,
) -> list[str]:
    """One node of the training script's process group.

    Args:
        beside: the folder of the job file.
        http: ``HOST:PORT`` where it answers probes, or None for nowhere.
        grace_s: how long its ranks may take to leave.
    """
    return [
        *(*launcher, "student", "--import-from", str(beside)),
        *("--coordinator", coordinator, "--nnodes", student.nnodes),
        *("--nproc-per-node", str(student.nproc_per_node), "--max-restarts", str(student.max_restarts)),
        *(("--resize", student.resize) if student.resize != "restart" else ()),
        *(("--http", http) if http is not None else ()),
        *("--grace-s", repr(grace_s)),
        *(student.script, *student.args),
    ]


def wait_command(launcher: Sequence[str], coordinator: str, given_up_file: Path | None = None) -> list[str]:
    """Runs until the students have ended.

    Args:
        given_up_file: what is there once they will never begin.
    """
    given_up = () if given_up_file is None else ("--given-up-file", str(given_up_file))
    return [*launcher, "wait", "--coordinator", coordinator, *given_up]


def student_environment(
    job: JobConfig, coordinator: str, output: Path, extend: bool = False
) -> dict[str, str]:
    """What the training script finds, see docs/architecture.md.

    Args:
        extend: whether it goes on from a checkpoint though its labels came from another teacher.
    """
    variables = {
        "EDLDIST_COORDINATOR": coordinator,
        "EDLDIST_OUTPUT": str(output),
        "EDLDIST_JOB": job.name,
        "EDLDIST_CHECKPOINT_KEEP": str(job.checkpoint.keep),
    }
    if job.checkpoint.every_steps is not None:
        variables["EDLDIST_CHECKPOINT_EVERY_STEPS"] = str(job.checkpoint.every_steps)
    variables["EDLDIST_ON_POISON"] = job.on_poison
    variables["EDLDIST_AGREEMENT"] = job.agreement_text
    variables["EDLDIST_HEARTBEAT_TTL_S"] = repr(job.coordinator.heartbeat_ttl_s)
    if job.student.high_watermark is not None:
        variables["EDLDIST_HIGH_WATERMARK"] = str(job.student.high_watermark)
    if job.student.low_watermark is not None:
        variables["EDLDIST_LOW_WATERMARK"] = str(job.student.low_watermark)
    if job.student.weight is not None:
        variables["EDLDIST_WEIGHT"] = str(job.student.weight)
    if job.student.priority:
        variables["EDLDIST_PRIORITY"] = str(job.student.priority)
    if job.student.degrade:
        variables["EDLDIST_DEGRADE"] = ",".join(each.entry for each in job.student.degrade)
    if job.deterministic:
        variables["EDLDIST_DETERMINISTIC"] = "1"
        variables["EDLDIST_TASK_SIZE"] = str(job.task_size)
    if extend:
        variables["EDLDIST_EXTEND"] = "1"
    if job.store is not None:
        variables |= _store_environment(job.store)
    if job.store is not None or any(teacher.label_settings for teacher in job.teachers):
        variables["EDLDIST_STORE_TEACHERS"] = json.dumps(_label_makers(job))
    if job.label is not None and labels_ahead(job):
        variables[LABEL_VARIABLE] = job.label.model_dump_json()
    return variables | job.student.env


def _label_makers(job: JobConfig) -> dict[str, dict[str, str]]:
    """What is known of the labels that a store is to have, by teacher group."""
    return {
        teacher.name: {
            "model": teacher.model if is_factory(teacher.model) else "",
            "codec": teacher.codec,
            "version": teacher.version,
            "settings": teacher.label_settings,
        }
        for teacher in job.teachers
    }


def _store_environment(store: StoreConfig) -> dict[str, str]:
    """The section ``store``."""
    return {
        "EDLDIST_STORE": store.path,
        "EDLDIST_STORE_MEMORY_MIB": str(memory_bytes(store.memory) >> 20),
        "EDLDIST_STORE_DISK_MIB": str(memory_bytes(store.disk) >> 20),
        "EDLDIST_STORE_PREPROCESSING": store.preprocessing,
        "EDLDIST_STORE_DATA": store.data,
        "EDLDIST_STORE_READ_ONLY": str(int(store.read_only)),
        "EDLDIST_STORE_ONLY": str(int(store.only)),
    }
