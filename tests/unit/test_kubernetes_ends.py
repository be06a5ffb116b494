"""Scaling, stopping and reading the logs of a job on Kubernetes, against an API of the test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from edldist.errors import ConfigError, LaunchError
from edldist_launch.cli.stop import stop
from edldist_launch.job import found
from edldist_launch.kubernetes import logs as logs_module
from edldist_launch.kubernetes.backend import KubernetesBackend
from edldist_launch.kubernetes.kubectl import Kubectl
from edldist_launch.kubernetes.logs import PodLogs
from tests.unit.kubernetes_api import FakeApi
from tests.unit.kubernetes_jobs import ended, job_folder, plan_of, student_runs, submitted


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return job_folder(tmp_path, monkeypatch)


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


def test_numbers_are_asked_of_deployments_and_jobs(folder: Path, api: FakeApi) -> None:
    backend = submitted(folder, api)
    backend.scale({"t": 3, "student": 1})
    assert api.object("Deployment", "digits-t")["spec"]["replicas"] == 3
    assert api.object("Job", "digits-student")["spec"]["parallelism"] == 1
    state = backend.state()
    assert (state.role("t").wanted, state.role("t").held, state.role("student").held) == (3, 3, 1)
    backend.scale({"t": None, "student": None})
    state = backend.state()
    assert [(role.wanted, role.held) for role in state.roles[1:]] == [(1, None), (2, None)]


def test_a_group_that_keda_scales_is_held_by_keda(folder: Path, api: FakeApi) -> None:
    backend = submitted(folder, api, "kubernetes={autoscaler: keda}")
    backend.scale({"t": 2})
    scaler = api.object("ScaledObject", "digits-t")
    assert scaler["metadata"]["annotations"]["autoscaling.keda.sh/paused-replicas"] == "2"
    assert "replicas" not in api.object("Deployment", "digits-t")["spec"]
    assert backend.state().role("t").held == 2
    backend.scale({"t": None})
    assert "autoscaling.keda.sh/paused-replicas" not in scaler["metadata"]["annotations"]


def test_a_number_out_of_bounds_changes_nothing(folder: Path, api: FakeApi) -> None:
    backend = submitted(folder, api)
    for wanted, says in (({"t": 3, "student": 9}, "student=9"), ({"t": 0}, "t=0"), ({"x": 1}, "no role `x`")):
        with pytest.raises(ConfigError, match=says):
            backend.scale(wanted)
    assert api.object("Deployment", "digits-t")["spec"]["replicas"] == 1
    ended(api, "Complete")
    with pytest.raises(LaunchError, match="does not run any more: it succeeded"):
        backend.scale({"t": 2})


def test_stopping_tells_students_first_and_leaves_the_claim(folder: Path, api: FakeApi) -> None:
    backend = submitted(folder, api)
    api.asked.clear()
    backend.stop()
    assert [request for request in api.asked if not request.startswith("get")] == [
        "patch jobs.batch",
        "patch deployments.apps",
        "delete jobs.batch",
    ]
    assert api.kinds == ["PersistentVolumeClaim"]
    assert (backend.state().phase, backend.state().reason) == ("failed", "it was stopped")
    backend.stop()


def test_who_is_not_waited_for_is_told_so_before_its_end_begins(folder: Path, api: FakeApi) -> None:
    """A pod that ends already keeps the time that it was told first, on clusters before 1.22."""
    backend = submitted(folder, api)
    api.asked.clear()
    backend.stop(grace_s=0.5)
    assert [request for request in api.asked if not request.startswith("get")] == [
        "delete pods",
        "patch jobs.batch",
        "delete pods",
        "patch deployments.apps",
        "delete jobs.batch",
    ]


def test_stopping_what_has_ended_removes_it_and_keeps_how_it_ended(
    folder: Path, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = submitted(folder, api)
    student_runs(api)
    ended(api, "Complete")
    monkeypatch.setattr(found, "backend_of", lambda submission, output: backend)
    kubectl = folder / "bin" / "kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text('#!/bin/sh\ncase "$*" in *" logs digits-student-abcde "*) echo done;; esac\n')
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", str(kubectl.parent), prepend=os.pathsep)
    said = CliRunner().invoke(stop, ["--output", str(folder / "out")], standalone_mode=False)
    assert "has ended already (succeeded)" in said.output
    assert api.kinds == ["PersistentVolumeClaim"] and backend.state().phase == "succeeded"
    assert list(backend.logs("student")) == ["digits-student-abcde: done"]


def test_a_folder_without_a_job_is_named(folder: Path, api: FakeApi) -> None:
    backend = KubernetesBackend(folder, api.run)
    for call in (backend.state, backend.stop, lambda: backend.scale({"t": 1}), backend.logs):
        with pytest.raises(LaunchError, match=f"no job was started in {folder}"):
            call()


def test_logs_are_followed_through_an_outage_of_the_api(
    folder: Path, api: FakeApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logs_module, "LOOK_S", 0.0)
    backend = KubernetesBackend(folder / "out", api.run)
    backend.start(plan_of(folder))
    first = len(api.asked)
    api.silent_from, api.heals_at = first + 6, first + 12
    done = iter(range(1_000))

    def refuse(request: str) -> None:
        if next(done) == 20:
            student = api.object("Job", "digits-student")
            student["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}

    api.refuse = refuse
    assert list(backend.logs(follow=True)) == []
    words = [record.getMessage() for record in caplog.records]
    assert len(words) >= 2 and "Unable to connect to the server" in words[0]
    assert words[-1] == "the engine tells again how the job is"


def test_a_connection_that_an_outage_ended_is_followed_by_one_that_begins_behind_the_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_module, "LOOK_S", 0.01)
    printed = [
        "10.000000001Z step 1",
        "10.000000002Z step 2",
        "10.500000000Z step 3",
        "11.000000000Z the end",
    ]
    stamped = [f"2026-01-01T00:00:{line}" for line in printed]
    # The first connection is cut off after two lines; the API knows times of lines by the second.
    connections = [stamped[:2], stamped[:3], stamped]
    asked: list[tuple[str, ...]] = []

    class Connection:
        def __init__(self, kubectl: Kubectl, pod: str, follow: bool, options: tuple[str, ...]) -> None:
            asked.append(options)

        def __enter__(self) -> Iterator[str]:
            return iter(connections[len(asked) - 1])

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr(logs_module, "_Following", Connection)
    logs = PodLogs(Kubectl("c", "lab"), tmp_path, ["digits-t"])
    told = list(logs.follow(lambda: {"pod": len(asked) < 2}, lambda: len(asked) == 3))
    assert told == ["pod: step 1", "pod: step 2", "pod: step 3", "pod: the end"]
    assert asked == [
        ("--timestamps",),
        ("--timestamps", "--since-time=2026-01-01T00:00:10.000000002Z"),
        ("--timestamps", "--since-time=2026-01-01T00:00:10.500000000Z"),
    ], "none after the one that was made when the pod had ended"


def test_what_kubectl_repeats_is_said_once() -> None:
    words = 'error: context "nope" does not exist'
    kubectl = Kubectl("nope", "lab", lambda arguments, given: (1, "", f"{words}\n" * 4))
    with pytest.raises(LaunchError, match=f"^Kubernetes refuses: {words}$"):
        kubectl.get("pods", "a=b")
