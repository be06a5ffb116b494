"""A job file as objects of Kubernetes, and what tests look at in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edldist_launch.kubernetes.render import render
from edldist_launch.kubernetes.resolve import plan_in_image

__all__ = ["JOB", "Object", "main", "pod", "rendered", "variables"]

Object = dict[str, Any]
JOB = """\
name: edldist
teachers:
  - {model: "examples.digits.models:teacher", replicas: 2}
student: {script: train.py, nnodes: "1:2"}
kubernetes: {keep_s: null}
"""


def rendered(folder: Path, *overrides: str, text: str = JOB) -> dict[tuple[str, str], Object]:
    (folder / "job.yaml").write_text(text)
    objects = render(plan_in_image(folder / "job.yaml", overrides), "lab", "t0ken")
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert len(found) == len(objects)
    return found


def pod(objects: dict[tuple[str, str], Object], kind: str, name: str) -> Object:
    spec: Object = objects[kind, name]["spec"]["template"]["spec"]
    return spec


def main(objects: dict[tuple[str, str], Object], kind: str, name: str) -> Object:
    (container,) = pod(objects, kind, name)["containers"]
    assert isinstance(container, dict)
    return container


def variables(container: Object) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}
