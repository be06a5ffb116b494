"""Where the paths of a job file lead."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edldist.config import JobConfig, TeacherConfig
from edldist.errors import ConfigError
from edldist.labeller import labels_ahead
from edldist.reference import (
    ENGINE_FILES,
    FOLDER,
    FOLLOW,
    is_engine,
    is_factory,
    is_folder,
    is_in_folder,
    place_of,
)

__all__ = ["check_weights", "find", "lead_paths", "resolve_paths"]


def resolve_paths(job: JobConfig, job_file: Path) -> JobConfig:
    """The job with its scripts and weights found: whole paths, whichever folder it is started from.

    A relative path is looked for from the current folder and from that of the job file. It has to be in one
    of them, or the same file in both. What a teacher loads may be in neither yet: ``prepare`` may make it, in
    either. Such a path stays as it is written, until a second call finds it; whoever runs the job makes that
    call once the preparation has ended, so that the job's record says what every later start of it says.
    Modules are imported from the same two folders, so what holds for files holds for those of a model and of
    a data set.

    Raises:
        ConfigError: a script is in neither, or two different files are meant; names both places.
    """
    places = (Path.cwd(), job_file.absolute().parent)
    student = job.student
    if not labels_ahead(job):
        script = _script("student.script", student.script, places)
        student = student.model_copy(update={"script": script})
    prepare = job.prepare
    if prepare is not None:
        prepare = prepare.model_copy(update={"script": _script("prepare.script", prepare.script, places)})
    for number, teacher in enumerate(job.teachers):
        for key, factory in (("model", teacher.model), ("dataset", teacher.dataset)):
            if factory is not None and is_factory(factory):
                _check_module(f"teachers[{number}].{key}", factory, places)
    teachers = [
        teacher.model_copy(update=_found(f"teachers[{number}]", teacher, places))
        for number, teacher in enumerate(job.teachers)
    ]
    updated = {"student": student, "prepare": prepare, "teachers": teachers, "store": job.store}
    if job.store is not None and not job.store.is_url:
        # One that is not there yet is made beside the job file, wherever the job is started from.
        path = find("store.path", job.store.path, places) or os.path.abspath(places[1] / job.store.path)
        updated["store"] = job.store.model_copy(update={"path": path})
    return job.model_copy(update=updated)


def check_weights(job: JobConfig, beside: Path) -> None:
    """Refuse a resolved job with weights, or the folder of a model, that are not there.

    Raises:
        ConfigError: with the key, the path and where it was looked for.
    """
    for number, teacher in enumerate(job.served):
        named = (
            ("weights", "file or folder", teacher.weights),
            ("vocabulary", "file or folder", teacher.vocabulary),
            ("model", "folder", _folder_of(teacher)),
        )
        for key, kind, path in named:
            if path is not None and place_of(path) is None and not Path(path).exists():
                raise ConfigError(_nowhere(f"teachers[{number}].{key}", kind, path, (Path.cwd(), beside)))


def _folder_of(teacher: TeacherConfig) -> str | None:
    """The folder of a model that is one."""
    if not is_folder(teacher.model):
        return None
    return teacher.model.removeprefix(FOLDER).partition("#")[0]


def find(key: str, path: str, places: tuple[Path, Path]) -> str | None:
    """The whole path where it leads to something from here, else from the job file; None if from neither.

    Args:
        key: the name of the setting.
        places: the current folder, and that of the job file.

    Raises:
        ConfigError: it leads to two different files.
    """
    here, beside = (place / path for place in places)
    if not here.exists():
        return os.path.abspath(beside) if beside.exists() else None
    if beside.exists() and not beside.samefile(here):
        raise ConfigError(
            f"{key}: {path} could be {here} or {beside}, beside the job file: "
            "write the whole path of the one that you mean"
        )
    return os.path.abspath(here)


def lead_paths(
    prefix: str,
    lead: Callable[[str, str], str],
    *,
    model: str,
    weights: str | None,
    vocabulary: str | None,
    kwargs: Mapping[str, Any],
) -> dict[str, Any]:
    """Those settings of one teacher that are paths of what it loads, led somewhere; the others are left out.

    Args:
        prefix: of the settings' names, as in ``teachers[0].``.
        lead: where a path leads, by the name of its setting and the path as it is written.
        model, weights, vocabulary, kwargs: the settings, see ``TeacherConfig``.
    """
    found: dict[str, Any] = {}
    if weights is not None and place_of(weights) is None:
        found["weights"] = lead(f"{prefix}weights", weights)
    if vocabulary is not None:
        found["vocabulary"] = lead(f"{prefix}vocabulary", vocabulary)
    if is_folder(model):
        folder, mark, name = model.removeprefix(FOLDER).partition("#")
        found["model"] = f"{FOLDER}{lead(f'{prefix}model', folder)}{mark}{name}"
    if is_engine(model):
        found["kwargs"] = {
            name: lead(f"{prefix}kwargs.{name}", value)
            if name in ENGINE_FILES and isinstance(value, str)
            else value
            for name, value in kwargs.items()
        }
    return found


def _found(key: str, teacher: TeacherConfig, places: tuple[Path, Path]) -> dict[str, Any]:
    """The paths of one teacher that lead somewhere, in full."""
    found = lead_paths(
        f"{key}.",
        lambda name, path: find(name, path, places) or path,
        model=teacher.model,
        weights=teacher.weights,
        vocabulary=teacher.vocabulary,
        kwargs=teacher.kwargs,
    )
    place = place_of(teacher.weights)
    if place is not None and not is_in_folder(place):  # where the student will publish some
        found["weights"] = FOLLOW + (place if "://" in place else str(Path(place).absolute()))
    return found


def _script(key: str, path: str, places: tuple[Path, Path]) -> str:
    found = find(key, path, places)
    if found is None:
        raise ConfigError(_nowhere(key, "file", path, places))
    if not Path(found).is_file():
        raise ConfigError(f"{key}: {found} is a folder; a Python script is a file")
    return found


def _nowhere(key: str, kind: str, path: str, places: tuple[Path, Path]) -> str:
    looked = " and ".join(str(place) for place in dict.fromkeys(places))
    return f"{key}: no such {kind}: {path} (looked from {looked})"


def _check_module(key: str, factory: str, places: tuple[Path, Path]) -> None:
    """Refuse a module of which both folders have one: which is imported must not depend on an order."""
    name = factory.partition(":")[0].partition(".")[0]
    here, beside = (_module(place, name) for place in places)
    if here is not None and beside is not None and not beside.samefile(here):
        raise ConfigError(
            f"{key}: {factory} could be of {here} or of {beside}, beside the job file: "
            "rename one of them, or start the job from the folder of the job file"
        )


def _module(place: Path, name: str) -> Path | None:
    files = (place / name / "__init__.py", place / f"{name}.py")
    return next((file for file in files if file.is_file()), None)
