"""Whether an object is what today's Kubernetes and its common extensions take, by their own schemas.

Kubernetes' own kinds are checked by its OpenAPI schemas (PyPI ``kubernetes-validate``; strict: an unknown
field is an error), JobSet by its models (PyPI ``kubeflow-trainer-api``), KEDA's kinds and the Prometheus
operator's by theirs (npm ``@kubernetes-models``), which a small program of node runs. A kind that none of
these knows is an error, too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

__all__ = ["KUBERNETES", "problems", "require_models"]

KUBERNETES = "1.37"
HERE = Path(__file__).parent
MODELS = ("@kubernetes-models/keda@2.0.0", "@kubernetes-models/prometheus-operator@6.0.0")
CUSTOM = ("keda.sh/", "monitoring.coreos.com/")
Object = dict[str, Any]


def problems(objects: Iterable[Object]) -> tuple[int, list[str]]:
    """How many objects were checked, and what is wrong with them, each in a line."""
    checked, found = 0, []
    custom: list[Object] = []
    for each in objects:
        checked += 1
        if each["apiVersion"].startswith(CUSTOM):
            custom.append(each)
        elif each["apiVersion"].startswith("jobset.x-k8s.io/"):
            found += _of_jobset(each)
        else:
            found += _of_kubernetes(each)
    if custom:
        found += _of_models(custom)
    return checked, found


def _of_kubernetes(each: Object) -> list[str]:
    import kubernetes_validate

    try:
        kubernetes_validate.validate(each, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError as exc:
        return [f"{_name(each)}: {exc.message}"]
    except kubernetes_validate.ValidationError as exc:
        where = "/".join(str(part) for part in exc.path)
        return [f"{_name(each)}: {where}: {exc.message}"]
    return []


def _of_jobset(each: Object) -> list[str]:
    """By its models, and its pods by Kubernetes' schema of a Job. The models drop what they do not know."""
    from kubeflow_trainer_api import models

    made = models.JobsetV1alpha2JobSet.from_dict(each)
    found = [f"{_name(each)}: unknown: {path}" for path in _lost(each, made.to_dict())]
    for job in each["spec"]["replicatedJobs"]:
        whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}} | job["template"]
        found += _of_kubernetes(whole)
    return found


def _lost(before: Any, after: Any, path: str = "") -> Iterable[str]:
    if isinstance(before, Mapping):
        for key, value in before.items():
            if not isinstance(after, Mapping) or key not in after:
                yield f"{path}/{key}"
            else:
                yield from _lost(value, after[key], f"{path}/{key}")
    elif isinstance(before, list):
        for number, value in enumerate(before):
            yield from _lost(value, after[number], f"{path}/{number}")


def _of_models(custom: list[Object]) -> list[str]:
    done = subprocess.run(
        ["node", "models.mjs"],
        cwd=require_models(),
        input=json.dumps(custom),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said: list[str | None] = json.loads(done.stdout)
    return [f"{_name(each)}: {words}" for each, words in zip(custom, said, strict=True) if words is not None]


@lru_cache(maxsize=1)
def require_models() -> Path:
    """The folder in which the npm packages are installed; skips the test where they cannot be."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}: the models of KEDA and of the Prometheus operator are npm packages")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "edldist" / "kubernetes-models"
    folder.mkdir(parents=True, exist_ok=True)
    program = HERE / "models.mjs"
    if not (folder / "installed").exists():
        command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(folder), *MODELS]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"npm install {' '.join(MODELS)} failed: {done.stderr.strip()[-300:]}")
        (folder / "installed").touch()
    shutil.copy(program, folder / program.name)
    return folder


def _name(each: Object) -> str:
    return f"{each['kind']} {each['metadata']['name']}"
