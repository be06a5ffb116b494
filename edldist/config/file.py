"""Reading and writing a job file. ``job_schema`` says what it may say as JSON schema, for editors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edldist.config.job import JobConfig
from edldist.config.problems import explain, keys
from edldist.errors import ConfigError
from edldist.yamltext import dump_yaml, parse_yaml

__all__ = ["dump_job", "job_schema", "load_job"]


def load_job(
    path: str | Path, overrides: Sequence[str] = (), student: Mapping[str, Any] | None = None
) -> JobConfig:
    """Read a job file and apply overrides.

    Args:
        path: the YAML file.
        overrides: ``key=value``; the key a dotted path (``teachers.0.replicas``), the value YAML. Or
            ``@FILE``, a YAML file that holds a mapping of such keys to values.
        student: keys of the section that take the place of the file's own, whether it has one or not.

    Raises:
        ConfigError: the file cannot be read or says something that is not allowed. All problems
            are listed, each with its key's path, the value, and what is allowed.
    """
    document = _read(Path(path))
    for override in overrides:
        if override.startswith("@"):
            for key, value in _keys_of(Path(override[1:])).items():
                _put(document, key, value, f"--set {override}")
        else:
            _override(document, override)
    if student is not None:
        own = document.get("student")
        document["student"] = {**own, **student} if isinstance(own, dict) else dict(student)
    elif "label" in document and "student" not in document:
        raise ConfigError(
            f"{path}: student: missing; with `label` alone the file is for edldist label {path}"
        )
    try:
        return JobConfig.model_validate(document)
    except ValidationError as exc:
        problems = [explain(error, JobConfig) for error in exc.errors()]
        several = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"{path}: {several}\n{listed}") from exc


def dump_job(job: JobConfig) -> str:
    """The resolved job as YAML, every default written out; ``load_job`` of it gives an equal job."""
    return dump_yaml(job.model_dump())


def job_schema() -> dict[str, Any]:
    """The JSON schema of a job file: editors complete and check by it.

    It refuses no file that ``load_job`` takes, and takes some that ``load_job`` refuses: it knows nothing of
    what depends on two places (names of teachers that differ, ``min_replicas`` and ``replicas``), and of
    codecs no more than their names.
    """
    schema = JobConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "edldist job file"}


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"no such job file: {path}") from None
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: not a UTF-8 text file: {exc}") from exc
    except OSError as exc:
        raise ConfigError(f"cannot read the job file {path}: {exc.strerror}") from exc
    document = parse_yaml(text, str(path))
    if not isinstance(document, dict):
        held = "nothing" if document is None else f"a {type(document).__name__}"
        raise ConfigError(f"{path}: a job file is a mapping of {keys(JobConfig)}, this one holds {held}")
    return document


def _override(document: dict[str, Any], override: str) -> None:
    """Set one dotted path in place. Missing mappings are made; validation judges the result."""
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key or not all(key.split(".")):
        raise ConfigError(f"--set {override}: write key=value, as in --set student.nproc_per_node=2")
    _put(document, key, parse_yaml(text, f"--set {override}"), f"--set {override}")


def _keys_of(path: Path) -> dict[str, Any]:
    """The keys, with dots, and values of a file that ``--set @FILE`` names."""
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"), f"--set @{path}")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"--set @{path}: cannot read it: {exc}") from exc
    if not isinstance(document, dict) or not document:
        raise ConfigError(f"--set @{path}: needs a mapping of keys to values, as in teachers.0.replicas: 3")
    for key in document:
        if not isinstance(key, str) or not all(key.split(".")):
            raise ConfigError(f"--set @{path}: {key!r} is no key of a job file, as teachers.0.replicas is")
    return document


def _put(document: dict[str, Any], key: str, value: Any, said: str) -> None:
    """Set one dotted path in place; ``said`` is what the user wrote. Missing mappings are made."""
    place: Any = document
    *parents, last = key.split(".")
    for depth, part in enumerate([*parents, last]):
        here = ".".join(key.split(".")[:depth]) or "the job"
        index: Any = part
        if isinstance(place, list):
            if not part.isdecimal() or int(part) >= len(place):
                raise ConfigError(
                    f"{said}: {here} is a list of {len(place)}; "
                    f"use an index from 0 to {len(place) - 1}, not `{part}`"
                )
            index = int(part)
        elif not isinstance(place, dict):
            raise ConfigError(f"{said}: {here} is {place!r}, which has no `{part}` in it")
        if depth == len(parents):
            place[index] = value
            return
        if isinstance(place, dict) and place.get(index) is None:
            place[index] = {}
        place = place[index]
