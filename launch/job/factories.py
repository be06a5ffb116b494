"""Whether the factories that a job file names are there, before anything is started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edldist.config import JobConfig
from edldist.errors import ConfigError
from edldist.labeller import labels_ahead
from edldist.reference import is_engine, is_factory
from edldist.teacher.engines.address import EngineAddress
from edldist.teacher.engines.settings import EngineSettings

__all__ = ["check_factories"]

IMPORT_S = 60.0
_Environment = tuple[tuple[str, str], ...]
_Wanted = tuple[str, str, str, dict[str, Any]]
"""The key, what it is for, ``module:factory`` and its arguments."""
_Answer = tuple[str, str, str]
"""The key, a kind of answer and its text."""
# In a process of its own: what a module does when it is imported shall neither stay nor hold a device here.
# Its answer has a stream of its own, as modules print.
_FIND = """
import sys
sys.path[:1] = [place for place in sys.path[:1] if place]  # not the current folder, in front of Python's own
import json, os
answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
places, wanted = json.loads(sys.argv[1])
from edldist.errors import EdlDistError, ModelImportError
from edldist.factories.factory import find, imported
from edldist.factories.signature import takes
from edldist_launch.process.importing import make_importable
make_importable(*places)
for key, what, path, kwargs in wanted:
    try:
        told = ("rank", "world_size") if what == "data set" else ()
        find(what, path, {**kwargs, **{name: 0 for name in told if takes(imported(what, path), name)}})
    except ModelImportError as exc:
        why = f"importing it raises here, without a device: {str(exc).splitlines()[-1]}"
        print(json.dumps([key, "unknown", why]), file=answer, flush=True)
    except EdlDistError as exc:
        print(json.dumps([key, "refused", str(exc)]), file=answer, flush=True)
print(json.dumps(["", "done", ""]), file=answer, flush=True)
os._exit(0)  # whatever threads the modules have started
"""


def check_factories(job: JobConfig, beside: Path) -> list[str]:
    """Import the modules of models and data sets, and look for their factories, without any device.

    Args:
        job: resolved.
        beside: the folder of the job file.

    Returns:
        What cannot be told here: modules that raise when they are imported, as they may for want of a device.

    Raises:
        ConfigError: there is no such module or factory, or it takes other arguments; names all of them.
    """
    remarks: list[str] = []
    refused = list(_wrong_engines(job))
    for environment, wanted in _factories(job).items():
        for key, kind, text in _looked_for(wanted, dict(environment), beside):
            (refused if kind == "refused" else remarks).append(f"{key}: {text}")
    if refused:
        raise ConfigError("\n".join(refused))
    return remarks


def _wrong_engines(job: JobConfig) -> Iterator[str]:
    """What is wrong with how engines are named and asked; nobody looks whether they are there."""
    for number, teacher in enumerate(job.served):
        if is_engine(teacher.model):
            try:
                EngineAddress.parse(teacher.model)
                EngineSettings.read(teacher.model, teacher.kwargs)
            except ConfigError as exc:
                yield f"teachers[{number}]: {exc}"


def _factories(job: JobConfig) -> dict[_Environment, list[_Wanted]]:
    """What is to be found, by the variables that the job file gives to those who import it."""
    found: dict[_Environment, list[_Wanted]] = {}
    for number, teacher in enumerate(job.served):
        wanted = found.setdefault(tuple(teacher.env.items()), [])
        if is_factory(teacher.model):
            wanted.append((f"teachers[{number}].model", "model", teacher.model, dict(teacher.kwargs)))
        if teacher.dataset is not None:
            wanted.append((f"teachers[{number}].dataset", "dataset", teacher.dataset, {}))
    if job.label is not None and labels_ahead(job):
        wanted = found.setdefault(tuple(job.label.env.items()), [])
        wanted.append(("label.data", "data set", job.label.data, dict(job.label.kwargs)))
    return {environment: wanted for environment, wanted in found.items() if wanted}


def _looked_for(wanted: list[_Wanted], environment: dict[str, str], beside: Path) -> list[_Answer]:
    names = ", ".join(key for key, *_ in wanted)
    hidden = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _FIND, json.dumps([[str(Path.cwd()), str(beside)], wanted])],
            capture_output=True,
            text=True,
            check=False,
            timeout=IMPORT_S,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment, **hidden},
        )
    except subprocess.TimeoutExpired:
        return [(names, "unknown", f"not looked for, as importing took more than {IMPORT_S:.0f} s")]
    answers: list[_Answer] = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
    if ("", "done", "") in answers:
        return answers[:-1]
    said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    return [*answers, (names, "unknown", f"importing ended the process that looked for them: {said[0]}")]
