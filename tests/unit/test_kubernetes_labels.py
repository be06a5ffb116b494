"""Labels that are kept, and made ahead of time, on Kubernetes: where they lie, and who makes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edldist.errors import ConfigError
from edldist_launch.kubernetes.render import render
from edldist_launch.kubernetes.resolve import plan_in_image
from edldist_launch.plan.labelling import load_label_job
from tests.clusters.kubernetes.schemas import problems
from tests.unit.kubernetes_objects import JOB, main, pod, rendered, variables


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").touch()
    (tmp_path / "prepare.py").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "store", "leads_to"),
    [
        ("{}", "{path: labels}", "/output/labels"),
        ("{claim: team}", "{path: 'a/../b/c'}", "/output/b/c"),
        ("{}", "{path: /output/other}", "/output/other"),
        ("{}", "{path: 's3://b/labels'}", "s3://b/labels"),
        ("{object_store: 's3://b/run'}", "{path: 's3://b/labels'}", "s3://b/labels"),
        ("{object_store: 's3://b/run', claim: team}", "{path: labels}", "/output/labels"),
        ("{volumes: [{path: /data, claim: c, read_only: false}]}", "{path: /data/labels}", "/data/labels"),
        ("{}", "{path: /job/labels, read_only: true}", "/job/labels"),
    ],
)
def test_a_store_of_labels_lies_where_pods_find_it_again(
    folder: Path, settings: str, store: str, leads_to: str
) -> None:
    objects = rendered(folder, f"kubernetes={settings}", f"store={store}")
    assert variables(main(objects, "Job", "edldist-student"))["EDLDIST_STORE"] == leads_to
    assert "EDLDIST_STORE" not in variables(main(objects, "Deployment", "edldist-teacher"))


@pytest.mark.parametrize(
    ("settings", "store", "says"),
    [
        ("{}", "{path: ../labels}", "store.path: ../labels is no folder in the claim for output"),
        ("{}", "{path: .}", r"store.path: \. is no folder in the claim for output"),
        (
            "{object_store: 's3://b/run'}",
            "{path: labels}",
            "beside kubernetes.object_store pods share no folder",
        ),
        ("{}", "{path: /job/labels}", "pods cannot write to /job/labels. .*read_only: true"),
        ("{volumes: [{path: /data, claim: c}]}", "{path: /data/labels}", "pods cannot write to /data/labels"),
        ("{object_store: 's3://b/run'}", "{path: /output/labels}", "pods cannot write to /output/labels"),
    ],
)
def test_a_store_of_labels_that_pods_would_lose_is_refused(
    folder: Path, settings: str, store: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        rendered(folder, f"kubernetes={settings}", f"store={store}")


def test_a_data_set_is_labelled_by_the_pods_of_a_job(folder: Path) -> None:
    text = (
        JOB
        + "label: {data: 'm:f', inputs: x, nproc_per_node: 2, resources: {cpus: 4}}\nstore: {path: kept}\n"
    )
    (folder / "job.yaml").write_text(text)
    plan = plan_in_image(folder / "job.yaml", load=load_label_job)
    made = render(plan, "lab", "t0ken")
    objects = {(each["kind"], each["metadata"]["name"]): each for each in made}
    checked, found = problems(made)
    assert found == [] and checked == len(made)
    job = objects["Job", "edldist-labels-student"]["spec"]
    labeller = main(objects, "Job", "edldist-labels-student")
    assert job["parallelism"] == 1 and labeller["resources"]["requests"]["cpu"] == "4"
    assert labeller["command"][-1] == "edldist:labeller" and "2" in labeller["command"]
    assert json.loads(variables(labeller)["EDLDIST_LABEL"])["inputs"] == "x"
    assert variables(labeller)["EDLDIST_STORE"] == "/output/kept"
    trains = rendered(folder, "kubernetes.claim=edldist-labels-output", "store.only=true", text=text)
    student = main(trains, "Job", "edldist-student")
    assert variables(student)["EDLDIST_STORE"] == "/output/kept"
    sources = {each["name"]: each for each in pod(trains, "Job", "edldist-student")["volumes"]}
    claim = objects["PersistentVolumeClaim", "edldist-labels-output"]["metadata"]["name"]
    assert sources["output"]["persistentVolumeClaim"] == {"claimName": claim}
    assert ("Deployment", "edldist-teacher") not in trains, "all labels are there"
