"""A job file as pods run it: overrides applied, and its paths where they lead in the image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from edldist.config import KubernetesConfig, TeacherConfig, load_job
from edldist.errors import ConfigError
from edldist.reference import ENGINE_FILES, FOLDER, is_engine, is_folder, place_of
from edldist_launch.kubernetes.names import Names
from edldist_launch.kubernetes.render import LAUNCHER
from edldist_launch.plan.plan import Plan

__all__ = ["plan_in_image"]


def plan_in_image(job_path: Path, overrides: Sequence[str] = (), extend: bool = False) -> Plan:
    """The plan of a job whose pods have the current folder's files in ``kubernetes.workdir``.

    A relative path is looked for from the current folder and from that of the job file, as ``edldist run``
    does, and leads to the same place below ``workdir``. Whole paths are those of the image or of its volumes.

    Args:
        extend: whether students go on from a checkpoint though its labels came from another teacher.

    Raises:
        ConfigError: the job file is wrong, or a script is in neither folder.
    """
    job = load_job(job_path, overrides)
    settings = job.kubernetes or KubernetesConfig()
    places = _Places(Path.cwd(), job_path.absolute().parent, PurePosixPath(settings.workdir))
    student = job.student.model_copy(update={"script": places.script("student.script", job.student.script)})
    prepare = job.prepare
    if prepare is not None:
        prepare = prepare.model_copy(update={"script": places.script("prepare.script", prepare.script)})
    teachers = [
        teacher.model_copy(update=_paths(f"teachers[{number}]", teacher, places))
        for number, teacher in enumerate(job.teachers)
    ]
    resolved = job.model_copy(
        update={"student": student, "prepare": prepare, "teachers": teachers, "kubernetes": settings}
    )
    return Plan(resolved, Path(places.beside_in_image), Path(Names(job.name).output), LAUNCHER, extend)


def _paths(key: str, teacher: TeacherConfig, places: _Places) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if teacher.weights is not None and place_of(teacher.weights) is None:
        found["weights"] = places.lead(f"{key}.weights", teacher.weights)
    if teacher.vocabulary is not None:
        found["vocabulary"] = places.lead(f"{key}.vocabulary", teacher.vocabulary)
    if is_folder(teacher.model):
        folder, mark, name = teacher.model.removeprefix(FOLDER).partition("#")
        found["model"] = f"{FOLDER}{places.lead(f'{key}.model', folder)}{mark}{name}"
    if is_engine(teacher.model):
        found["kwargs"] = {
            name: places.lead(f"{key}.kwargs.{name}", value)
            if name in ENGINE_FILES and isinstance(value, str)
            else value
            for name, value in teacher.kwargs.items()
        }
    return found


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
        """Where a path leads in the image; one that leads nowhere here may be made there, by ``prepare``.

        Raises:
            ConfigError: it could be of two different files.
        """
        here, beside = self._here / path, self._beside / path
        if os.path.isabs(path) or here == beside:
            return str(self._workdir / path)
        if here.exists() and beside.exists() and not beside.samefile(here):
            raise ConfigError(
                f"{key}: {path} could be {here} or {beside}, beside the job file: "
                "write the path from the current folder of the one that you mean"
            )
        at = self.beside_in_image if beside.exists() and not here.exists() else self._workdir
        return str(at / path)
