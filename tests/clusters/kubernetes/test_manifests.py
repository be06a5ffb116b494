"""The manifests in ``k8s``: what they render to, and whether clusters take it."""

from __future__ import annotations

import copy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from edldist.errors import ConfigError
from edldist_launch.kubernetes.kustomization import MANIFESTS, merge, read_kustomization
from tests.clusters.kubernetes.schemas import problems

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = [MANIFESTS / "base", *sorted((MANIFESTS / "overlays").iterdir())]
COMPONENTS = sorted(folder.name for folder in (MANIFESTS / "components").iterdir())
OBJECTS = {
    **{
        "base": 11,
        "digits": 12,
        "end": 12,
        "end-prepared": 13,
        "gpu": 11,
        "jobset": 11,
        "keda": 14,
        "kueue": 11,
        "prometheus": 14,
        "spot": 11,
    },
}
Object = dict[str, Any]


def named(objects: list[Object]) -> dict[tuple[str, str], Object]:
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert len(found) == len(objects)
    return found


def test_what_is_shipped_is_what_lies_in_the_root() -> None:
    assert MANIFESTS == ROOT / "launch" / "kubernetes" / "k8s" and MANIFESTS.samefile(ROOT / "k8s")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_object_is_what_todays_clusters_take(folder: Path) -> None:
    checked, found = problems(read_kustomization(folder))
    assert found == []
    assert checked == OBJECTS[folder.name]


def test_every_component_has_an_overlay_that_shows_it() -> None:
    shown = [yaml.safe_load((folder / "kustomization.yaml").read_text()) for folder in FOLDERS[1:]]
    assert sorted({Path(each).name for one in shown for each in one["components"]}) == COMPONENTS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_they_are_read_here_as_kubectl_reads_them(folder: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl")
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True, timeout=60
    )
    assert named(list(yaml.safe_load_all(done.stdout))) == named(read_kustomization(folder))


@pytest.mark.parametrize(
    ("overlay", "kind", "spoil", "says"),
    [
        ("base", "Deployment", lambda it: it["spec"].update(replica=1), "'replica' was unexpected"),
        ("base", "Job", lambda it: it["spec"].update(parallelism="2"), "'2' is not of type 'integer'"),
        ("base", "Service", lambda it: it.update(kind="Servise"), "Couldn't find schema for kind Servise"),
        ("base", "PodDisruptionBudget", lambda it: it.update(apiVersion="policy/v1beta1"), "find schema"),
        ("keda", "ScaledObject", lambda it: it["spec"].pop("scaleTargetRef"), "required property"),
        ("keda", "ScaledObject", lambda it: it["spec"].update(least=1), "unknown: /spec/least"),
        (
            "keda",
            "TriggerAuthentication",
            lambda it: it.update(kind="Trigger"),
            "no model knows this kind: keda.sh/v1alpha1 Trigger",
        ),
        ("prometheus", "ServiceMonitor", lambda it: it["spec"]["endpoints"][0].update(interval=5), "string"),
        ("prometheus", "PrometheusRule", lambda it: it["spec"]["groups"][0].pop("name"), "required property"),
        ("jobset", "JobSet", lambda it: it["spec"].update(replicated=1), "unknown: /spec/replicated"),
        (
            "jobset",
            "JobSet",
            lambda it: it["spec"]["replicatedJobs"][0]["template"]["spec"].update(retries=1),
            "'retries' was unexpected",
        ),
    ],
)
def test_what_no_cluster_takes_is_found(
    overlay: str, kind: str, spoil: Callable[[Object], Any], says: str
) -> None:
    folder = next(each for each in FOLDERS if each.name == overlay)
    spoilt = next(each for each in read_kustomization(folder) if each["kind"] == kind)
    spoil(spoilt)
    checked, found = problems([spoilt])
    assert checked == 1 and any(says in each for each in found)


def test_the_pods_of_the_jobset_are_those_of_the_job() -> None:
    job = next(each for each in read_kustomization(FOLDERS[0]) if each["kind"] == "Job")
    jobset = read_kustomization(MANIFESTS / "overlays" / "jobset")
    assert not [each for each in jobset if each["kind"] == "Job"]
    (made,) = next(each for each in jobset if each["kind"] == "JobSet")["spec"]["replicatedJobs"]
    assert made["template"]["spec"].pop("completionMode") == "NonIndexed"
    assert made["template"]["spec"] == job["spec"]


def pods() -> list[tuple[str, Object]]:
    """Every pod of every overlay, with where it is."""
    found = []
    for folder in FOLDERS:
        for each in read_kustomization(folder):
            spec = each.get("spec", {})
            jobs = [one["template"]["spec"] for one in spec.get("replicatedJobs", [])]
            for owner in [spec, *jobs]:
                if "template" in owner and "containers" in owner["template"].get("spec", {}):
                    found.append((f"{folder.name} {each['metadata']['name']}", owner["template"]))
    return found


@pytest.mark.parametrize(("where", "pod"), pods(), ids=[where for where, _ in pods()])
def test_pods_may_do_no_more_than_they_need(where: str, pod: Object) -> None:
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "hostNetwork" not in spec and "hostPID" not in spec and "hostIPC" not in spec
    containers = [*spec["containers"], *spec.get("initContainers", [])]
    for container in containers:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        resources = container["resources"]
        assert resources["requests"].keys() == {"cpu", "memory"}
        assert resources["limits"]["memory"] == resources["requests"]["memory"]
    assert all("hostPath" not in volume for volume in spec["volumes"])
    mounted = {mount["name"] for container in containers for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}
    labels = pod["metadata"]["labels"]
    assert labels.keys() >= {"edldist/job", "edldist/kind", "edldist/role"}


@pytest.mark.parametrize(("where", "pod"), pods(), ids=[where for where, _ in pods()])
def test_pods_that_serve_answer_probes(where: str, pod: Object) -> None:
    (container,) = pod["spec"]["containers"]
    if pod["metadata"]["labels"]["edldist/kind"] in ("prepare", "end"):
        return
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_labels_choose_pods_of_the_job_alone() -> None:
    for folder in FOLDERS:
        for each in read_kustomization(folder):
            assert each["metadata"]["labels"]["edldist/job"] == "edldist", each
            selector = each["spec"].get("selector", {}) if "spec" in each else {}
            if chosen := selector.get("matchLabels", selector):
                assert chosen["edldist/job"] == "edldist", each
            template = each.get("spec", {}).get("template", {}).get("metadata", {}).get("labels")
            if template and each["kind"] == "Deployment":
                assert chosen.items() <= template.items()


@pytest.mark.parametrize(
    ("into", "patch", "merged"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
        ({"args": [1, 2]}, {"args": [3]}, {"args": [3]}),
        ({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        (
            {"containers": [{"name": "main", "image": "a", "env": [{"name": "A", "value": "1"}]}]},
            {
                "containers": [
                    {"name": "main", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "3"}]}
                ]
            },
            {
                "containers": [
                    {
                        "name": "main",
                        "image": "a",
                        "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "3"}],
                    }
                ]
            },
        ),
        ({}, {"containers": [{"name": "side"}]}, {"containers": [{"name": "side"}]}),
    ],
)
def test_a_patch_is_merged_strategically(into: Object, patch: Object, merged: Object) -> None:
    before = copy.deepcopy(into), copy.deepcopy(patch)
    assert merge(into, patch) == merged
    assert (into, patch) == before


def test_what_this_reader_does_not_know_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: []\nnamePrefix: a\n")
    with pytest.raises(ConfigError, match="unknown here: namePrefix"):
        read_kustomization(tmp_path)
    (tmp_path / "kustomization.yaml").write_text("patches: [{path: p.yaml}]\n")
    (tmp_path / "p.yaml").write_text("{apiVersion: v1, kind: Service, metadata: {name: a}}")
    with pytest.raises(ConfigError, match="a patch is of v1 Service a, which there is not"):
        read_kustomization(tmp_path)


def test_what_is_read_is_the_readers_own() -> None:
    first = read_kustomization(FOLDERS[0])
    first[0]["metadata"]["name"] = "changed"
    assert read_kustomization(FOLDERS[0])[0]["metadata"]["name"] == "edldist-coordinator"
