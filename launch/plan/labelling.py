"""A job that labels a data set ahead of time, out of a job file: a labeller stands in the student's place.

All else is as in a job that trains: coordinator, teachers, queue, launcher, record. So whatever places the
one places the other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from edldist.bounds import LONGEST_JOB_NAME
from edldist.config import JobConfig, load_job
from edldist.errors import ConfigError
from edldist.labeller import SCRIPT

__all__ = ["ENDING", "load_label_job", "loader"]

ENDING = "-labels"
"""Of the name of such a job: its folder is not that of the job that trains."""


def load_label_job(path: Path, overrides: Sequence[str], store: str | None = None) -> JobConfig:
    """The job that labels what the section ``label`` of a job file names.

    Of the file's own student, if it has one, what the job's preparation may ask for (``args``) and what tells
    jobs apart on a fleet that they share stay.

    Args:
        overrides: ``key=value``, see ``load_job``.
        store: where labels go, instead of ``store.path``.

    Raises:
        ConfigError: the file is wrong, has no such section, or names no store that may be written.
    """
    named = []
    if store is not None:  # as every path on a command line it leads from here, and not from the job file
        place = store if "://" in store else os.path.abspath(store)
        named = [f"store.path={json.dumps(place)}"]
    job = load_job(path, [*overrides, *named], student={"script": SCRIPT})
    label = job.label
    if label is None:
        raise ConfigError(
            f"{path}: label: missing; it says what to label, as in label: {{data: package.module:factory, "
            "inputs: image}"
        )
    if job.store is None:
        raise ConfigError(
            f"{path}: store: missing; it says where labels go, as in store: {{path: labels}}, or "
            "--store labels"
        )
    if job.store.read_only:
        raise ConfigError(f"{path}: store.read_only: true, and labels are to be written there; leave it out")
    name = job.name if job.name.endswith(ENDING) else job.name + ENDING
    if len(name) > LONGEST_JOB_NAME:
        raise ConfigError(
            f"{path}: name: {job.name!r} is too long: the job that labels is called NAME{ENDING}, and "
            f"{LONGEST_JOB_NAME} characters are allowed"
        )
    if label.ids is not None and not job.store.data:
        raise ConfigError(
            f"{path}: label.ids: {label.ids}, and nobody knows of what: say in store.data which data set, "
            "and which version of it, these are ids of"
        )
    student = job.student.model_copy(
        update={
            "nnodes": "1",
            "nproc_per_node": label.nproc_per_node,
            "max_restarts": label.max_restarts,
            "resources": label.resources,
            "env": label.env,
            "degrade": [],  # the labels that are asked for, or none
        }
    )
    # There are no labels yet; and labels of a cut are of no use but in that very cut.
    kept = job.store.model_copy(update={"only": False})
    changes = {"name": name, "student": student, "store": kept, "deterministic": False}
    return job.model_copy(update=changes)


def loader(labels: bool) -> Callable[[Path, Sequence[str]], JobConfig]:
    """What reads a job file: ``load_label_job`` where its data set is to be labelled, else ``load_job``."""
    return load_label_job if labels else load_job
