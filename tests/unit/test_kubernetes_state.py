"""The state of a job on Kubernetes, out of an API of the test's own: who runs, who waits, how it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edldist_launch.kubernetes.backend import KubernetesBackend
from edldist_launch.process.version import own_version
from tests.unit.kubernetes_api import FakeApi
from tests.unit.kubernetes_jobs import RUNNING, ended, job_folder, student_runs, submitted


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return job_folder(tmp_path, monkeypatch)


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


def test_the_state_is_that_of_the_pods(folder: Path, api: FakeApi) -> None:
    backend = submitted(folder, api)
    student_runs(api)
    teacher = api.object("Deployment", "digits-t")
    api.pod(teacher, "digits-t-old", dict(RUNNING), deletionTimestamp="2026-01-01T00:00:00Z")
    state = backend.state()
    assert (state.phase, state.coordinator, state.reason) == ("running", "tcp://127.0.0.1:1234", "")
    assert [process.phase for process in state.role("t").processes] == ["running", "leaving"]
    assert state.role("t").processes[0].id == "digits-t-abcde"


WAITING = {
    "name": "main",
    "state": {"waiting": {"reason": "ErrImagePull", "message": "no such\nimage: nope"}},
}
CRASHED = {
    "name": "main",
    "restartCount": 4,
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
    "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}},
}
STARTED_AGAIN = {
    "name": "main",
    "restartCount": 1,
    "state": {"running": {}},
    "lastState": {
        "terminated": {"reason": "Error", "exitCode": 2, "message": "error: weights w: no such file"}
    },
}
OTHER_VERSION = {
    "name": "main",
    "restartCount": 2,
    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    "lastState": {
        "terminated": {
            "reason": "Error",
            "exitCode": 2,
            "message": "Usage: edldist teacher\n\nError: No such option: --new (this is edldist 0.0.9)\n",
        }
    },
}
GATE = {"name": "prepared", "state": {"running": {}}}
NO_ROOM = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes: no GPUs",
}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (
            {"phase": "Pending", "containerStatuses": [WAITING]},
            "ErrImagePull: no such image: nope (is kubernetes.image right",
        ),
        (
            {"phase": "Running", "containerStatuses": [CRASHED]},
            "CrashLoopBackOff: back-off 40s; before: OOMKilled (exit code 137, it needs more memory",
        ),
        (
            {"phase": "Running", "containerStatuses": [OTHER_VERSION]},
            "CrashLoopBackOff; before: Error: Error: No such option: --new (this is edldist 0.0.9) (exit code"
            f" 2, the image has another edldist than this one, which is {own_version()}: build the image fro",
        ),
        ({"phase": "Pending", "conditions": [NO_ROOM]}, "Unschedulable: 0/3 nodes: no GPUs"),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on disk"}, "Evicted: low on disk"),
        ({"phase": "Pending", "initContainerStatuses": [GATE]}, "it waits for its init container `prepared`"),
    ],
    ids=["image", "crash", "version", "room", "evicted", "gate"],
)
def test_a_pod_that_does_not_run_says_why(
    folder: Path, api: FakeApi, status: dict[str, Any], reason: str
) -> None:
    backend = submitted(folder, api)
    api.pod(api.object("Job", "digits-student"), "digits-student-abcde", status)
    state = backend.state()
    (process,) = state.role("student").processes
    assert process.reason.startswith(reason)
    assert state.phase == "pending" and state.reason.startswith(f"digits-student-abcde: {reason}")


def test_a_worker_that_was_started_again_tells_how_it_ended_before(folder: Path, api: FakeApi) -> None:
    backend = submitted(folder, api)
    teacher = api.object("Deployment", "digits-t")
    api.pod(teacher, "digits-t-abcde", {"phase": "Running", "containerStatuses": [STARTED_AGAIN]})
    (worker,) = backend.state().role("t").processes
    said = "before: Error: error: weights w: no such file (exit code 2)"
    assert (worker.phase, worker.reason, worker.restarts) == ("running", said, 1)


def test_pods_that_nobody_could_make_are_explained(folder: Path, api: FakeApi) -> None:
    backend = submitted(folder, api)
    api.warn("Job", "digits-student", "FailedCreate", "exceeded quota: cpu")
    api.warn("Job", "another", "FailedCreate", "not ours", at="2027-01-01T00:00:00Z")
    message = "pods violate PodSecurity restricted"
    api.object("Deployment", "digits-t")["status"] = {
        "conditions": [
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
        ]
    }
    state = backend.state()
    assert state.role("t").processes[0].reason == f"FailedCreate: {message}"
    assert state.role("student").processes[0].reason == "FailedCreate: exceeded quota: cpu"
    assert state.reason == f"t: FailedCreate: {message}"


def test_a_claim_that_cannot_be_had_is_what_the_job_waits_for(folder: Path, api: FakeApi) -> None:
    backend = submitted(folder, api)
    api.object("PersistentVolumeClaim", "digits-output")["status"] = {"phase": "Pending"}
    api.warn("PersistentVolumeClaim", "digits-output", "ProvisioningFailed", "no such class")
    assert backend.state().reason == "claim digits-output: ProvisioningFailed: no such class"


def test_a_claim_for_which_the_cluster_has_no_storage_is_explained(folder: Path, api: FakeApi) -> None:
    backend = submitted(folder, api)
    claim = api.object("PersistentVolumeClaim", "digits-output")
    message = "no persistent volumes available for this claim and no storage class is set"
    api.warn("PersistentVolumeClaim", "digits-output", "FailedBinding", message, severity="Normal")
    claim["status"] = {"phase": "Bound"}
    assert backend.state().reason == ""
    claim["status"] = {"phase": "Pending"}
    said = backend.state().reason
    assert said.startswith(f"claim digits-output: FailedBinding: {message} (kubernetes.storage_class names")


def test_a_job_that_ended_is_remembered_when_the_cluster_has_forgotten_it(folder: Path, api: FakeApi) -> None:
    backend = submitted(folder, api)
    terminated = {"name": "main", "state": {"terminated": {"reason": "Error", "exitCode": 1}}}
    status = {"phase": "Failed", "containerStatuses": [terminated]}
    api.pod(api.object("Job", "digits-student"), "digits-student-abcde", status)
    ended(api, "Failed", reason="PodFailurePolicy", message="container main failed")
    reason = "student: PodFailurePolicy: container main failed; Error (exit code 1)"
    assert (backend.state().phase, backend.state().reason) == ("failed", reason)
    api.objects.clear()
    again = KubernetesBackend(folder / "out", api.run).state()
    assert (again.phase, again.reason, again.roles) == ("failed", reason, ())


def failed_pod(code: int, said: str = "") -> dict[str, Any]:
    terminated = {"reason": "Error", "exitCode": code, "message": said}
    return {"phase": "Failed", "containerStatuses": [{"name": "main", "state": {"terminated": terminated}}]}


def test_a_preparation_that_failed_is_why_the_job_did(folder: Path, api: FakeApi) -> None:
    (folder / "prepare.py").touch()
    backend = submitted(folder, api, "prepare={script: prepare.py}")
    prepare = api.object("Job", "digits-prepare")
    api.pod(prepare, "digits-prepare-z", failed_pod(1, "ValueError: first"), creationTimestamp="1")
    assert backend.state().phase == "pending" and "ValueError: first" in backend.state().reason
    api.pod(prepare, "digits-prepare-b", failed_pod(1, "ValueError: last"), creationTimestamp="2")
    ended(api, "Failed", reason="PodFailurePolicy", message="container prepared failed")
    reason = "prepare: Error: ValueError: last (exit code 1)"
    assert (backend.state().phase, backend.state().reason) == ("failed", reason)
    api.pod(prepare, "digits-prepare-a", failed_pod(75), creationTimestamp="3")
    prepare["status"] = {
        "conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]
    }
    again = KubernetesBackend(folder / "out", api.run)
    assert again.state().reason == ("prepare: BackoffLimitExceeded; Error: ValueError: last (exit code 1)")


def test_workers_go_with_the_students_and_what_tells_of_the_job_stays(folder: Path, api: FakeApi) -> None:
    backend = submitted(folder, api)
    student_runs(api)
    ended(api, "Complete")
    api.run(["delete", "jobs.batch", "--selector", "edldist/job=digits,edldist/kind=end"], "")
    assert not [each for each in api.objects if each["metadata"]["labels"]["edldist/kind"] == "teacher"]
    state = KubernetesBackend(folder / "out", api.run).state()
    assert state.phase == "succeeded" and [role.name for role in state.roles] == ["coordinator", "student"]
    backend.stop()
    assert api.kinds == ["PersistentVolumeClaim"]


def test_a_job_that_went_unseen_says_so(folder: Path, api: FakeApi) -> None:
    backend = submitted(folder, api)
    api.objects.clear()
    assert "nobody saw how it ended" in backend.state().reason
