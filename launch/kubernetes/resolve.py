"""A job file as pods run it: overrides applied, and its paths where they lead in the image."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from edldist.config import JobConfig, KubernetesConfig, TeacherConfig, load_job
from edldist.errors import ConfigError
from edldist.labeller import labels_ahead
from edldist_launch.kubernetes.names import Names
from edldist_launch.kubernetes.render import LAUNCHER
from edldist_launch.kubernetes.stores import store_in_pods
from edldist_launch.plan.paths import lead_paths
from edldist_launch.plan.plan import Plan

__all__ = ["plan_in_image"]


def plan_in_image(
    job_path: Path,
    overrides: Sequence[str] = (),
    extend: bool = False,
    load: Callable[[Path, Sequence[str]], JobConfig] = load_job,
) -> Plan:
    """The plan of a job whose pods have the current folder's files in ``kubernetes.workdir``.

    A relative path is looked for from the current folder and from that of the job file, as ``edldist run``
    does, and leads to the same place below ``workdir``. Whole paths are those of the image or of its volumes.
    What a teacher loads may be in neither folder yet, and be made in either by ``prepare``: such a path stays
    as it is written, and workers look for it in both. A store of labels lies in the claim for output.

    Args:
        extend: whether students go on from a checkpoint though its labels came from another teacher.
        load: reads the file.

    Raises:
        ConfigError: the job file is wrong, a script is in neither folder, or a path leads out of what
            the image holds.
    """
    job = load(job_path, overrides)
    settings = job.kubernetes or KubernetesConfig()
    places = _Places(Path.cwd(), job_path.absolute().parent, PurePosixPath(settings.workdir))
    student = job.student
    if not labels_ahead(job):
        student = student.model_copy(update={"script": places.script("student.script", student.script)})
    prepare = job.prepare
    if prepare is not None:
        prepare = prepare.model_copy(update={"script": places.script("prepare.script", prepare.script)})
    teachers = [
        teacher.model_copy(update=_paths(f"teachers[{number}]", teacher, places))
        for number, teacher in enumerate(job.teachers)
    ]
    store = None if job.store is None else store_in_pods(job.store, settings)
    made = {"student": student, "prepare": prepare, "teachers": teachers, "store": store}
    resolved = job.model_copy(update=made | {"kubernetes": settings})
    return Plan(resolved, Path(places.beside_in_image), Path(Names(job.name).output), LAUNCHER, extend)


def _paths(key: str, teacher: TeacherConfig, places: _Places) -> dict[str, Any]:
    return lead_paths(
        f"{key}.",
        places.lead,
        model=teacher.model,
        weights=teacher.weights,
        vocabulary=teacher.vocabulary,
        kwargs=teacher.kwargs,
    )


class _Places:
    """The folders from which a job's paths start, here and in the image.

    Args:
        here: the current folder.
        beside: that of the job file.
        workdir: what the image has of the current folder.
    """

    def __init__(self, here: Path, beside: Path, workdir: PurePosixPath) -> None:
        self._here, self._beside, self._workdir = here, beside, workdir
        try:
            self.beside_in_image = workdir / beside.relative_to(here)
        except ValueError:  # a job file from elsewhere: its folder is in the image as itself
            self.beside_in_image = workdir

    def script(self, key: str, path: str) -> str:
        """Where a script is in the image.

        Raises:
            ConfigError: a relative path leads nowhere from here, as it would in the image.
        """
        if not os.path.isabs(path) and not any(
            (place / path).is_file() for place in (self._here, self._beside)
        ):
            looked = " and ".join(dict.fromkeys((str(self._here), str(self._beside))))
            raise ConfigError(f"{key}: no such file: {path} (looked from {looked})")
        return self.lead(key, path)

    def lead(self, key: str, path: str) -> str:
        """Where a path leads in the image.

        One that leads nowhere here, and may come to lie in either folder, stays as it is written.

        Raises:
            ConfigError: it could be of two different files, or leads out of what the image holds.
        """
        if os.path.isabs(path):
            return str(self._workdir / path)
        here, beside = self._here / path, self._beside / path
        if here == beside:
            return self._inside(key, self._workdir, path)
        if here.exists() and beside.exists() and not beside.samefile(here):
            raise ConfigError(
                f"{key}: {path} could be {here} or {beside}, beside the job file: "
                "write the path from the current folder of the one that you mean"
            )
        if here.exists():
            return self._inside(key, self._workdir, path)
        from_beside = self._inside(key, self.beside_in_image, path)
        return from_beside if beside.exists() else path

    def _inside(self, key: str, place: PurePosixPath, path: str) -> str:
        """A relative path from a folder of the image, if the image has what it leads to."""
        whole = os.path.normpath(place / path)
        if not PurePosixPath(whole).is_relative_to(os.path.normpath(self._workdir)):
            raise ConfigError(
                f"{key}: {path} leads to {whole} in the image, which holds the files of {self._here} alone, "
                f"in {self._workdir}: put it there, or write its whole path in the image or on a volume"
            )
        return whole
