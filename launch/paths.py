"""Where the paths of a job file lead."""

from __future__ import annotations

from pathlib import Path

from edldist.config import JobConfig
from edldist.errors import ConfigError

__all__ = ["resolve_paths"]


def resolve_paths(job: JobConfig, job_file: Path) -> JobConfig:
    """The job with its scripts and weights found.

    A relative path is looked for from the current folder and from that of the job file. It has to be in one
    of them, or the same file in both. Weights may be in neither yet: ``prepare`` may make them. Modules are
    imported from the same two folders, so what holds for files holds for those of a model and of a data set.

    Raises:
        ConfigError: a script is in neither, or two different files are meant; names both places.
    """
    places = (Path.cwd(), job_file.absolute().parent)
    student = job.student.model_copy(update={"script": _script("student.script", job.student.script, places)})
    prepare = job.prepare
    if prepare is not None:
        prepare = prepare.model_copy(update={"script": _script("prepare.script", prepare.script, places)})
    for number, teacher in enumerate(job.teachers):
        for key, factory in (("model", teacher.model), ("dataset", teacher.dataset)):
            if factory is not None:
                _check_module(f"teachers[{number}].{key}", factory, places)
    teachers = [
        teacher.model_copy(
            update={
                "weights": teacher.weights
                and (_find(f"teachers[{number}].weights", teacher.weights, places) or teacher.weights)
            }
        )
        for number, teacher in enumerate(job.teachers)
    ]
    return job.model_copy(update={"student": student, "prepare": prepare, "teachers": teachers})


def _script(key: str, path: str, places: tuple[Path, Path]) -> str:
    found = _find(key, path, places)
    if found is None:
        looked = " and ".join(str(place) for place in dict.fromkeys(places))
        raise ConfigError(f"{key}: no such file: {path} (looked from {looked})")
    return found


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


def _find(key: str, path: str, places: tuple[Path, Path]) -> str | None:
    """The path as given where it leads to a file from here, else from the job file; None if from neither."""
    here, beside = (place / path for place in places)
    if not here.is_file():
        return str(beside) if beside.is_file() else None
    if beside.is_file() and not beside.samefile(here):
        raise ConfigError(
            f"{key}: {path} could be {here} or {beside}, beside the job file: "
            "write the whole path of the one that you mean"
        )
    return path
