"""What a real API server refuses, and what it does not: errors are clear, and nothing is left."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edldist.config import JobConfig, ScriptConfig
from edldist.errors import ConfigError, LaunchError
from edldist_launch.kubernetes.backend import KubernetesBackend
from edldist_launch.kubernetes.kubectl import Answer, run_kubectl
from edldist_launch.kubernetes.names import Names
from edldist_launch.kubernetes.render import LAUNCHER
from edldist_launch.plan.plan import Plan
from tests.clusters.kubernetes.cluster import IMAGE, Cluster
from tests.fault.harness import EDLDIST, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SPACE = "bad"
WITHIN_S = 600.0
KINDS = (
    "pods,jobs,deployments,services,configmaps,secrets,networkpolicies,poddisruptionbudgets,"
    "persistentvolumeclaims"
)


class Lab:
    """A namespace, and a job that does not train."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.output = folder / "out"

    def plan(self, name: str = "toy", **section: object) -> Plan:
        settings = {"image": IMAGE, "pull_policy": "Never", "namespace": SPACE}
        job = JobConfig.model_validate(
            {
                "name": name,
                "teachers": [{"name": "t", "model": "models:teacher"}],
                "student": {"script": "/job/student.py"},
                "kubernetes": settings | section,
            }
        )
        return Plan(job, Path("/job"), Path(Names(name).output), LAUNCHER)

    def refused(self, plan: Plan) -> str:
        """Why a job is not taken; nothing of it is left anywhere."""
        with pytest.raises((ConfigError, LaunchError)) as error:
            KubernetesBackend(self.output).start(plan)
        assert self.there() == []
        assert not self.output.exists()
        return str(error.value)

    def there(self, name: str = "toy") -> list[str]:
        """The objects of a job."""
        about = ("--selector", f"edldist/job={Names(name).label}", "--output", "name")
        return self.cluster.kubectl("get", KINDS, "--namespace", SPACE, *about).splitlines()

    def clear(self) -> None:
        about = ("--selector", "edldist/job", "--wait=false")
        self.cluster.kubectl("delete", "jobs,persistentvolumeclaims", "--namespace", SPACE, *about)
        wait_for("an empty namespace", lambda: not self.there(), WITHIN_S)
        self.cluster.offer_again(SPACE)


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> Cluster:
    cluster.room(SPACE, "toy-output")
    return cluster


@pytest.fixture
def lab(space: Cluster, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(space, tmp_path)
    yield made
    made.clear()


def test_what_is_not_there_is_named(lab: Lab) -> None:
    said = lab.refused(lab.plan(namespace="nowhere"))
    assert said.startswith("kubernetes.namespace: nowhere is not there") and "NotFound" in said
    said = lab.refused(lab.plan(storage_class="nowhere"))
    assert said.startswith("kubernetes.storage_class: nowhere is not there")
    said = lab.refused(lab.plan(queue="nowhere"))
    assert said.startswith("kubernetes.queue: nowhere is not there") and "resource type" in said
    assert "kubernetes.claim: nowhere is not there" in lab.refused(lab.plan(claim="nowhere"))
    said = lab.refused(lab.plan(priority_class="nowhere"))
    assert "kubernetes.priority_class: nowhere is not there" in said
    assert "nowhere" in lab.refused(lab.plan(context="nowhere"))
    assert "ServiceMonitor" in lab.refused(lab.plan(monitor=True)), "no operator is installed"


def test_who_may_not_make_a_job_makes_nothing_of_it(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "guest"
    config.write_text(lab.cluster.config.read_text().replace("admin-token", "guest-token"))
    monkeypatch.setenv("KUBECONFIG", str(config))
    with pytest.raises(LaunchError, match='User "guest" cannot'):
        KubernetesBackend(lab.output).start(lab.plan())
    lab.cluster.kubectl(
        *("create", "role", "half", "--namespace", SPACE, "--verb=get,list,watch,create,patch,delete"),
        "--resource=jobs.batch,pods,events,persistentvolumeclaims,deployments.apps,services,configmaps",
    )
    lab.cluster.kubectl("create", "rolebinding", "half", "-n", SPACE, "--role=half", "--user=guest")
    with pytest.raises(LaunchError, match='User "guest" cannot create resource "secrets"'):
        KubernetesBackend(lab.output).start(lab.plan())
    assert lab.there() == [] and not lab.output.exists()

    config.write_text(config.read_text().replace("namespace: default", f"namespace: {SPACE}"))
    done = subprocess.run([*EDLDIST, "doctor", "--json"], capture_output=True, text=True, timeout=WITHIN_S)
    (found,) = [each for each in json.loads(done.stdout) if each["check"] == "kubernetes"]
    assert found["level"] == "warn", found
    assert f"in namespace {SPACE} you may not: create secrets, create networkpolicies" in found["said"]
    assert "create pods/portforward" in found["said"] and "create jobs" not in found["said"]


def test_an_image_that_cannot_be_pulled_is_what_the_job_waits_for(lab: Lab) -> None:
    backend = KubernetesBackend(lab.output)
    backend.start(lab.plan(image="localhost/no-such-image:1", pull_policy="IfNotPresent"))
    wait_for("a reason", lambda: "is kubernetes.image right" in backend.state().reason, WITHIN_S)
    state = backend.state()
    assert state.phase == "pending" and "localhost/no-such-image:1" in state.reason, state
    backend.stop(1)
    assert lab.there() == ["persistentvolumeclaim/toy-output"]


def test_where_nothing_can_be_prepared_teachers_go_and_the_reason_is_said(lab: Lab) -> None:
    plan = lab.plan()
    nowhere = ScriptConfig(script="/job/nowhere.py")
    plan = replace(plan, job=plan.job.model_copy(update={"prepare": nowhere}))
    backend = KubernetesBackend(lab.output)
    backend.start(plan)
    wait_for("the end", lambda: backend.state().phase == "failed", WITHIN_S)
    reason = backend.state().reason
    assert reason.startswith("prepare: ") and "nowhere.py" in reason and "exit code 2" in reason, reason

    def workers() -> list[str]:
        about = ("--selector", "edldist/job=toy,edldist/kind=teacher", "--output", "name")
        return lab.cluster.kubectl("get", "pods,deployments", "--namespace", SPACE, *about).splitlines()

    wait_for("the workers' end", lambda: not workers(), WITHIN_S)
    assert any(each.startswith("pod") for each in lab.there()), "what tells of it is still there"
    backend.stop(1)
    assert lab.there() == ["persistentvolumeclaim/toy-output"]


@pytest.mark.parametrize("name", ["9.lives_" * 8, "A--"])
def test_a_job_may_be_called_what_kubernetes_would_not_take(lab: Lab, name: str) -> None:
    backend = KubernetesBackend(lab.output)
    plan = lab.plan(name)
    backend.start(plan)
    assert len(lab.there(name)) > 8
    assert backend.state().name == name
    with pytest.raises(LaunchError, match="a job runs in"):
        backend.start(plan)
    backend.stop(1)
    assert lab.there(name) == [f"persistentvolumeclaim/{Names(name).fixed('output')}"]


def test_a_server_that_goes_in_the_midst_of_a_submission_leaves_what_is_found_again(lab: Lab) -> None:
    gone = contextlib.ExitStack()
    made: list[str] = []

    def run(arguments: Sequence[str], given: str) -> Answer:
        answer = run_kubectl(arguments, given)
        if arguments[0] == "create" and "--dry-run=server" not in arguments:
            made.append(json.loads(given)["kind"])
            if made[-1] == "Secret" and made.count("Secret") == 1:
                gone.enter_context(lab.cluster.without_api())
        return answer

    with gone, pytest.raises(LaunchError, match=r"cannot be reached.*`edldist stop` removes it"):
        KubernetesBackend(lab.output, run).start(lab.plan())
    left = lab.there()
    assert any(each.startswith("job") for each in left) and any(each.startswith("secret") for each in left)
    assert not any(each.startswith("deployment") for each in left)
    backend = KubernetesBackend(lab.output)
    backend.stop(1)
    assert lab.there() == ["persistentvolumeclaim/toy-output"]
    backend.start(lab.plan())
    backend.stop(1)


def test_of_two_submits_at_once_one_is_whole_and_the_other_is_not_there(lab: Lab, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(json.dumps(lab.plan().job.model_dump(mode="json", exclude_none=True)))
    words = [*EDLDIST, "submit", "k8s", str(job), "--output"]
    outputs = [tmp_path / "one", tmp_path / "two"]
    both = [
        subprocess.Popen([*words, str(output)], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for output in outputs
    ]
    said = [process.communicate(timeout=WITHIN_S)[1] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 1], said
    winner, loser = codes.index(0), codes.index(1)
    assert "already" in said[loser] and not outputs[loser].exists()
    backend = KubernetesBackend(outputs[winner])
    assert backend.state().phase in ("pending", "running")
    assert sum(each.startswith("deployment") for each in lab.there()) == 2
    backend.stop(1)
