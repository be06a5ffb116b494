"""A job on a fake Kubernetes, for tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from edldist_launch.kubernetes import backend
from edldist_launch.kubernetes.backend import KubernetesBackend
from edldist_launch.kubernetes.resolve import plan_in_image
from edldist_launch.plan.plan import Plan
from tests.unit.kubernetes_api import FakeApi

JOB = """\
name: digits
teachers: [{name: t, model: "a:b", replicas: {min: 1, max: 3}}]
student: {script: train.py, nnodes: "1:2"}
"""
RUNNING = {"phase": "Running", "containerStatuses": [{"name": "main", "state": {"running": {}}}]}


class NoWay:
    """In the place of a forwarded port."""

    address = "tcp://127.0.0.1:1234"

    def __init__(self, command: list[str]) -> None:
        pass

    def close(self) -> None:
        pass


def job_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a job file, starting no process and waiting for nothing."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(backend, "LOOK_S", 0.0)
    monkeypatch.setattr(backend, "Forward", NoWay)
    (folder / "train.py").touch()
    (folder / "job.yaml").write_text(JOB)
    return folder


def plan_of(folder: Path, *overrides: str) -> Plan:
    return plan_in_image(folder / "job.yaml", overrides)


def submitted(folder: Path, api: FakeApi, *overrides: str) -> KubernetesBackend:
    made = KubernetesBackend(folder / "out", api.run)
    made.start(plan_of(folder, *overrides))
    return made


def student_runs(api: FakeApi) -> None:
    """Every role has a pod that runs."""
    for kind, name in (
        ("Deployment", "digits-coordinator"),
        ("Deployment", "digits-t"),
        ("Job", "digits-student"),
    ):
        api.pod(api.object(kind, name), f"{name}-abcde", dict(RUNNING))


def ended(api: FakeApi, kind: str, **fields: str) -> None:
    """The student's Job has this condition."""
    condition = {"type": kind, "status": "True", **fields}
    api.object("Job", "digits-student")["status"] = {"conditions": [condition]}
