"""The launch contract on Kubernetes, against an API of the test's own."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edldist.errors import ConfigError, LaunchError
from edldist.keys.folder import KeyFolder
from edldist.keys.pair import ROLES
from edldist_launch.cli.stop import stop
from edldist_launch.contract.job_keys import use_keys_of
from edldist_launch.contract.submission import Submission, find_submission
from edldist_launch.job import found
from edldist_launch.kubernetes import backend as backend_module
from edldist_launch.kubernetes import logs as logs_module
from edldist_launch.kubernetes.backend import KubernetesBackend
from edldist_launch.kubernetes.kubectl import Answer, Kubectl, Run
from edldist_launch.kubernetes.logs import PodLogs
from edldist_launch.kubernetes.resolve import plan_in_image
from edldist_launch.plan.plan import Plan
from edldist_launch.process.version import own_version
from edldist_launch.record.folder import FolderHeldError, JobFolder
from tests.unit.kubernetes_api import FakeApi

JOB = """\
name: digits
teachers: [{name: t, model: "a:b", replicas: {min: 1, max: 3}}]
student: {script: train.py, nnodes: "1:2"}
"""
RUNNING = {"phase": "Running", "containerStatuses": [{"name": "main", "state": {"running": {}}}]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(backend_module, "LOOK_S", 0.0)
    (tmp_path / "train.py").touch()
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


class NoWay:
    """In the place of a forwarded port."""

    address = "tcp://127.0.0.1:1234"

    def __init__(self, command: list[str]) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(backend_module, "Forward", NoWay)
    return iter(())


def plan_of(folder: Path, *overrides: str) -> Plan:
    return plan_in_image(folder / "job.yaml", overrides)


def submitted(folder: Path, api: FakeApi, *overrides: str) -> KubernetesBackend:
    backend = KubernetesBackend(folder / "out", api.run)
    backend.start(plan_of(folder, *overrides))
    return backend


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


# --- starting ---------------------------------------------------------------------------------------


def test_a_job_is_locked_with_keys_of_its_own_that_later_commands_find(
    folder: Path, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDLDIST_KEYS", raising=False)
    submitted(folder, api)
    keys = folder / "out" / "keys"
    assert keys.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in keys.glob("*.key")} == {0o600}
    made = api.object("Secret", "digits-keys")["stringData"]
    assert made == {path.name: path.read_text() for path in keys.iterdir()} and len(made) == 5
    found = find_submission(folder / "out")
    assert found is not None
    environment: dict[str, str] = {}
    use_keys_of(found, environment)
    assert environment == {"EDLDIST_KEYS": str(keys)}
    KubernetesBackend(folder / "out", api.run).stop()
    submitted(folder, api)
    assert api.object("Secret", "digits-keys")["stringData"] == made, "the job goes on with its keys"


def test_a_job_gets_the_keys_that_somebody_gives_or_none(
    folder: Path, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = KeyFolder(folder / "team")
    given.make()
    monkeypatch.setenv("EDLDIST_KEYS", str(given.path))
    submitted(folder, api)
    assert api.object("Secret", "digits-keys")["stringData"] == given.contents(ROLES)
    assert not (folder / "out" / "keys").exists()
    KubernetesBackend(folder / "out", api.run).stop()
    (given.path / "teacher.key").chmod(0o644)
    with pytest.raises(ConfigError, match=r"others can read the secret key .*teacher\.key: chmod 600"):
        submitted(folder, api)
    monkeypatch.delenv("EDLDIST_KEYS")
    monkeypatch.setenv("EDLDIST_INSECURE", "1")
    submitted(folder, api)
    assert "digits-keys" not in {each["metadata"]["name"] for each in api.objects}
    found = find_submission(folder / "out")
    assert found is not None and found.link == {"EDLDIST_INSECURE": "1"}


def test_a_job_is_made_whole_and_found_again(folder: Path, api: FakeApi) -> None:
    submitted(folder, api)
    owner, until = (api.object("Job", f"digits-{name}") for name in ("student", "end"))
    for each in api.objects:
        references = each["metadata"].get("ownerReferences")
        if each is owner or each["kind"] == "PersistentVolumeClaim":
            assert references is None, "checkpoints outlive the job"
        else:
            by = until if each["metadata"]["labels"]["edldist/kind"] == "teacher" else owner
            assert references is not None and references[0]["uid"] == by["metadata"]["uid"]
            assert (references[0]["kind"], references[0]["name"]) == ("Job", by["metadata"]["name"])
    found = find_submission(folder / "out")
    assert found is not None and (found.backend, found.job) == ("kubernetes", "digits")
    assert found.engine == {"context": None, "namespace": "lab", "label": "digits"}
    state = KubernetesBackend(folder / "out", api.run).state()
    assert (state.phase, state.coordinator) == ("pending", None)
    assert [(role.name, role.wanted) for role in state.roles] == [
        ("coordinator", 1),
        ("t", 1),
        ("student", 2),
    ]


def test_nothing_is_made_before_all_of_it_may_be(folder: Path, api: FakeApi) -> None:
    forbidden = 'Error from server (Forbidden): services is forbidden: User "me" cannot create resource'
    api.refuse = lambda request: forbidden if request == "create Service dry" else None
    with pytest.raises(LaunchError, match="User .me. cannot create"):
        submitted(folder, api)
    assert api.objects == [] and not (folder / "out").exists()
    assert not [request for request in api.asked if request.startswith("create") and "dry" not in request]


def _creations(folder: Path) -> list[str]:
    """Every request of a submission that makes something."""
    api = FakeApi()
    submitted(folder, api)
    return [request for request in api.asked if request.startswith("create") and "dry" not in request]


def test_whichever_object_is_refused_none_is_left(folder: Path) -> None:
    for number, request in enumerate(_creations(folder)):
        api, seen = FakeApi(), iter(range(100))

        def refuse(asked: str, number: int = number, seen: Iterator[int] = seen) -> str | None:
            if asked.startswith("create") and "dry" not in asked and next(seen) == number:
                return "Error from server: exceeded quota: pods=10"
            return None

        api.refuse = refuse
        output = folder / f"out-{number}"
        with pytest.raises(LaunchError, match="exceeded quota: pods=10"):
            KubernetesBackend(output, api.run).start(plan_of(folder))
        assert api.objects == [], request
        assert not output.exists()


def test_a_cluster_that_vanishes_for_a_moment_keeps_nothing(folder: Path) -> None:
    known = FakeApi()
    submitted(folder, known)
    first = next(at for at, request in enumerate(known.asked) if request == "create Job")
    for at in range(first, len(known.asked)):
        api = FakeApi()
        api.silent_from, api.heals_at = at, at + 1
        output = folder / f"out-{at}"
        with pytest.raises(LaunchError, match="cannot be reached: Unable to connect to the server"):
            KubernetesBackend(output, api.run).start(plan_of(folder))
        assert [kind for kind in api.kinds if kind != "PersistentVolumeClaim"] == []


def test_what_a_cluster_that_stays_away_keeps_is_found_again(folder: Path, api: FakeApi) -> None:
    known = FakeApi()
    submitted(folder, known, "name=other")
    (folder / "out").rename(folder / "other")
    api.silent_from = 3 + next(at for at, request in enumerate(known.asked) if request == "create Job")
    backend = KubernetesBackend(folder / "out", api.run)
    with pytest.raises(LaunchError, match="may still be in namespace lab .*`edldist stop` removes it"):
        backend.start(plan_of(folder))
    assert "Job" in api.kinds and find_submission(folder / "out") is not None
    api.silent_from = None
    backend.stop()
    assert api.kinds == ["PersistentVolumeClaim"]
    assert backend.state().phase == "failed"
    KubernetesBackend(folder / "out", api.run).start(plan_of(folder))


def test_a_second_job_of_a_name_or_into_a_folder_is_refused(folder: Path, api: FakeApi) -> None:
    submitted(folder, api)
    before = api.kinds
    with pytest.raises(LaunchError, match=f"a job runs in {folder / 'out'} .digits, in namespace lab"):
        submitted(folder, api, "name=another")
    with pytest.raises(LaunchError, match="job digits runs in namespace lab already"):
        KubernetesBackend(folder / "second", api.run).start(plan_of(folder))
    assert api.kinds == before and not (folder / "second").exists()


def test_a_submission_that_comes_second_by_a_moment_removes_nothing_of_the_first(
    folder: Path, api: FakeApi
) -> None:
    """The first one begins and ends between two requests of the second, whichever they are."""
    known = FakeApi()
    submitted(folder, known, "name=known")
    decided = known.asked.index("create Job")
    for number in range(1, 1 + decided):
        api, requests = FakeApi(), itertools.count()

        def asked(arguments: Sequence[str], given: str, at: int = number) -> Answer:
            if arguments[0] != "config" and next(requests) == at:  # noqa: B023
                KubernetesBackend(folder / f"first-{at}", api.run).start(plan_of(folder))  # noqa: B023
            return api.run(arguments, given)  # noqa: B023

        with pytest.raises(LaunchError, match="already exists|runs in namespace"):
            KubernetesBackend(folder / f"second-{number}", asked).start(plan_of(folder))
        assert len(api.objects) == len(known.objects), number
        assert not (folder / f"second-{number}").exists()


def test_a_run_on_this_machine_and_a_submission_never_have_one_folder(folder: Path) -> None:
    """The run begins between two requests of the submission, whichever they are: one of both is refused."""
    known = FakeApi()
    submitted(folder, known)
    taken = known.asked.index("get namespaces") + 1
    for number in range(len(known.asked)):
        api, requests = FakeApi(), itertools.count()
        output, runs, refusals = folder / f"out-{number}", [], []

        def asked(arguments: Sequence[str], given: str, at: int = number) -> Answer:
            if arguments[0] != "config" and next(requests) == at:  # noqa: B023
                try:
                    runs.append(JobFolder(output, plan_of(folder).job, "resume"))  # noqa: B023
                except FolderHeldError as exc:
                    refusals.append(str(exc))  # noqa: B023
            return api.run(arguments, given)  # noqa: B023

        with contextlib.ExitStack() as ending:
            ending.callback(lambda runs: [run.close() for run in runs], runs)
            backend = KubernetesBackend(output, asked)
            if number >= taken:  # it has looked for a job of its name, and for what the job names
                backend.start(plan_of(folder))
                assert not runs and "another run" in refusals[0] and len(api.objects) == len(known.objects)
            else:
                with pytest.raises(FolderHeldError, match="another run"):
                    backend.start(plan_of(folder))
                assert not api.objects and find_submission(output) is None


def test_of_two_submissions_into_one_folder_one_is_refused_and_the_other_is_whole(folder: Path) -> None:
    """The first one runs between two requests of the second, whichever they are."""
    known = FakeApi()
    submitted(folder, known)
    for number in range(1, len(known.asked)):
        api, requests = FakeApi(), itertools.count()
        output, refusals = folder / f"out-{number}", []

        def start(run: Run, output: Path = output, refusals: list[str] = refusals) -> None:
            try:
                KubernetesBackend(output, run).start(plan_of(folder))
            except (LaunchError, FolderHeldError) as exc:
                refusals.append(str(exc))

        def asked(arguments: Sequence[str], given: str, at: int = number) -> Answer:
            if arguments[0] != "config" and next(requests) == at:  # noqa: B023
                start(api.run)  # noqa: B023
            return api.run(arguments, given)  # noqa: B023

        start(asked)
        assert len(refusals) == 1, number
        assert len(api.objects) == len(known.objects)
        assert KubernetesBackend(output, api.run).state().phase == "pending"


def test_the_record_of_another_engine_is_left_alone(folder: Path, api: FakeApi) -> None:
    (folder / "out").mkdir()
    Submission("local", "digits").write(folder / "out")
    with pytest.raises(LaunchError, match=r"out is the record of a job on another engine \(digits, local\)"):
        submitted(folder, api)
    assert api.objects == [] and find_submission(folder / "out") is not None


def test_a_job_that_has_ended_makes_room_for_the_next_and_its_claim_stays(folder: Path, api: FakeApi) -> None:
    submitted(folder, api)
    first = api.object("PersistentVolumeClaim", "digits-output")["metadata"]["uid"]
    ended(api, "Failed", reason="PodFailurePolicy", message="exit code 1")
    submitted(folder, api)
    assert api.object("PersistentVolumeClaim", "digits-output")["metadata"]["uid"] == first
    backend = KubernetesBackend(folder / "out", api.run)
    backend.stop()
    assert "PersistentVolumeClaim digits-output" not in backend.try_out(plan_of(folder)), "it is there"
    submitted(folder, api)
    assert "status" not in api.object("Job", "digits-student")


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("{namespace: none}", "kubernetes.namespace: none is not there. .*NotFound"),
        ("{storage_class: none}", "kubernetes.storage_class: none is not there. .*NotFound"),
        ("{claim: none}", "kubernetes.claim: none is not there"),
        ("{volumes: [{path: /data, claim: none}]}", "kubernetes.volumes: none is not there"),
        ("{queue: none}", "kubernetes.queue: none is not there"),
        ("{student: {queue: none}}", "kubernetes.queue: none is not there"),
        ("{priority_class: none}", "kubernetes.priority_class: none is not there"),
    ],
)
def test_what_a_job_names_has_to_be_there(folder: Path, api: FakeApi, section: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        submitted(folder, api, f"kubernetes={section}")
    assert api.objects == [] and not (folder / "out").exists()


def test_what_one_may_not_look_at_is_left_to_the_cluster(folder: Path, api: FakeApi) -> None:
    forbidden = "Error from server (Forbidden): storageclasses is forbidden"
    api.refuse = lambda request: forbidden if request.startswith("get storageclasses") else None
    submitted(folder, api, "kubernetes={storage_class: shared}")


def test_an_unknown_namespace_is_refused_in_the_clusters_words(folder: Path, api: FakeApi) -> None:
    words = 'Error from server (NotFound): namespaces "lob" not found'
    api.refuse = lambda request: words if request.startswith("create") else None
    with pytest.raises(LaunchError, match='namespaces "lob" not found'):
        submitted(folder, api)
    assert not (folder / "out").exists()


# --- state ------------------------------------------------------------------------------------------


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


# --- scaling and stopping -----------------------------------------------------------------------------


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


def test_words_are_those_of_the_cluster_and_no_log_of_kubectl(folder: Path) -> None:
    noise = 'E1127 04:51:33.1 22294 memcache.go:265] "Unhandled Error" err="no group list"\n'
    words = "The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?"
    backend = KubernetesBackend(folder / "out", lambda arguments, given: (1, "", f"{noise}{noise}{words}\n"))
    with pytest.raises(LaunchError) as refused:
        backend.start(plan_of(folder))
    assert str(refused.value) == f"Kubernetes cannot be reached: {words}"


def test_who_has_no_kubeconfig_is_told_so(folder: Path) -> None:
    words = (
        "The connection to the server localhost:8080 was refused - did you specify the right host or port?"
    )
    backend = KubernetesBackend(folder / "out", lambda arguments, given: (1, "", f"{words}\n"))
    with pytest.raises(LaunchError, match="refused - did.*knows no cluster: is there a kubeconfig"):
        backend.start(plan_of(folder))
