"""A job file as objects of Kubernetes: through the manifests, with everything that the job file says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from edldist.config import load_job
from edldist.errors import ConfigError
from edldist.keys.pair import ROLES
from edldist_launch.cli.group import cli
from edldist_launch.kubernetes.kustomization import MANIFESTS, read_kustomization
from edldist_launch.kubernetes.render import dump, render
from edldist_launch.kubernetes.resolve import plan_in_image
from edldist_launch.kubernetes.shown import secrets_by_hand, without_secrets
from tests.clusters.kubernetes.schemas import problems
from tests.unit.kubernetes_objects import JOB, main, pod, rendered, variables


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").touch()
    (tmp_path / "prepare.py").touch()
    return tmp_path


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """The paths at which two values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(key for key in after if key not in before)]
        return [
            each for key in keys for each in differences(before.get(key), after.get(key), f"{path}/{key}")
        ]
    return [] if before == after else [path]


def test_a_job_called_as_the_manifests_is_the_manifests_with_its_own_commands(folder: Path) -> None:
    objects = read_kustomization(MANIFESTS / "overlays" / "end")
    base = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    made = rendered(folder)
    del made["Secret", "edldist-keys"]  # which lies in no file: see kustomization.yaml
    assert made.keys() == base.keys()
    inside, grace = "/spec/template/spec/containers", "/spec/template/spec/terminationGracePeriodSeconds"
    expected = {
        ("Deployment", "edldist-coordinator"): [inside],
        ("Deployment", "edldist-teacher"): [inside, grace, "/metadata/annotations/edldist/group"],
        ("Job", "edldist-student"): [inside, grace],
        ("Job", "edldist-end"): [inside],
        ("ConfigMap", "edldist-file"): ["/data/job.yaml"],
        ("Secret", "edldist-secret"): ["/stringData/http-token"],
        ("PodDisruptionBudget", "edldist-teacher"): ["/metadata/annotations/edldist/group"],
    }
    for identity, each in made.items():
        assert each["metadata"].pop("namespace") == "lab"
        assert each["metadata"]["annotations"].pop("edldist/name") == "edldist"
        own = [path for path in differences(base[identity], each) if path != "/metadata/annotations"]
        also = each["metadata"].pop("annotations")
        own += [f"/metadata/annotations/{key}" for key in also]
        assert sorted(own) == sorted(expected.get(identity, [])), identity
    for kind, name in (("Deployment", "edldist-teacher"), ("Job", "edldist-student")):
        changed = differences(main(base, kind, name), main(made, kind, name))
        assert set(changed) == {"/command", "/workingDir"} | ({"/env"} if kind == "Job" else set())


def test_every_object_is_what_todays_clusters_take(folder: Path) -> None:
    everything = (
        "name=A_job.of.odd.Characters",
        "prepare={script: prepare.py}",
        "teachers=[{model: 'a:b', replicas: {min: 0, max: 8}, resources: {gpus: 1, cpus: 4, memory: 16GiB}}, "
        "{name: Big_One, model: 'a:c', replicas: 3}]",
        "student.resources={gpus: 8, gpu_type: h100}",
        "kubernetes={spot: true, queue: lab, autoscaler: keda, monitor: true, storage_class: shared, "
        "volumes: [{path: /data, claim: images}], secrets: [s3], tolerations: [{key: a, operator: Equal, "
        "value: b}], node_selector: {pool: a}, pull_secrets: [r], annotations: {a/b: c}, priority_class: p}",
    )
    objects = rendered(folder, *everything)
    checked, found = problems(objects.values())
    assert found == [] and checked == len(objects) == 22


def test_each_pod_sees_the_key_of_its_role_alone(folder: Path) -> None:
    keys = {f"{role}.key": f"secret of {role}" for role in ROLES} | {"known.json": "public"}
    (folder / "job.yaml").write_text(JOB)
    plan = plan_in_image(folder / "job.yaml", ["name=digits", "prepare={script: prepare.py}"])
    objects = {(o["kind"], o["metadata"]["name"]): o for o in render(plan, "lab", "t0ken", keys)}
    assert objects["Secret", "digits-keys"]["stringData"] == keys
    holders = [name for name, each in objects.items() if "secret of" in json.dumps(each)]
    assert holders == [("Secret", "digits-keys")]
    for kind, name, role in (
        ("Deployment", "digits-coordinator", "coordinator"),
        ("Deployment", "digits-teacher", "teacher"),
        ("Job", "digits-student", "student"),
        ("Job", "digits-end", "operator"),
    ):
        spec = pod(objects, kind, name)
        (volume,) = [each["secret"] for each in spec["volumes"] if each["name"] == "keys"]
        assert volume["secretName"] == "digits-keys" and volume["defaultMode"] == 0o400
        assert [each["path"] for each in volume["items"]] == ["known.json", f"{role}.key"]
        assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsUser"]
        (mount,) = [each for each in main(objects, kind, name)["volumeMounts"] if each["name"] == "keys"]
        assert (
            mount["readOnly"] and variables(main(objects, kind, name))["EDLDIST_KEYS"] == mount["mountPath"]
        )
    assert "EDLDIST_KEYS" not in json.dumps(objects["Job", "digits-prepare"])
    token = [name for name, each in objects.items() if "t0ken" in json.dumps(each)]
    assert token == [("Secret", "digits-secret")], "and in no variable and no argument"


def test_a_job_without_keys_says_so_in_every_pod(folder: Path) -> None:
    (folder / "job.yaml").write_text(JOB)
    plan = plan_in_image(folder / "job.yaml")
    objects = {(o["kind"], o["metadata"]["name"]): o for o in render(plan, "lab", "t0ken", sealed=False)}
    assert ("Secret", "edldist-keys") not in objects
    assert "EDLDIST_KEYS" not in json.dumps(list(objects.values()))
    for kind, name in (
        *(("Deployment", "edldist-coordinator"), ("Deployment", "edldist-teacher")),
        *(("Job", "edldist-student"), ("Job", "edldist-end")),
    ):
        assert variables(main(objects, kind, name))["EDLDIST_INSECURE"] == "1"
        assert all(each["name"] != "keys" for each in pod(objects, kind, name)["volumes"])
    checked, found = problems(objects.values())
    assert found == [] and checked == len(objects)


def test_what_is_shown_to_people_has_no_secret_and_says_how_to_make_it(folder: Path) -> None:
    (folder / "job.yaml").write_text(JOB)
    secrets, others = without_secrets(render(plan_in_image(folder / "job.yaml"), "lab", "t0ken"))
    assert "t0ken" not in dump(others) and "Secret" not in {each["kind"] for each in others}
    said = secrets_by_hand(secrets)
    assert "kubectl --namespace lab create secret generic edldist-keys --from-file=keys\n" in said
    assert "create secret generic edldist-secret --from-file=http-token\n" in said
    assert all(line.startswith("#") for line in said.splitlines())


def test_each_teacher_group_has_objects_of_its_own(folder: Path) -> None:
    objects = rendered(
        folder,
        "name=digits",
        "teachers=[{name: small, model: 'a:b', replicas: 3, env: {A: b}}, {name: Big_One, model: 'a:c'}]",
        "kubernetes={image: 'all:1', teachers: {small: {image: 'own:2', node_selector: {pool: cpu}}}}",
    )
    groups = {
        each["metadata"]["annotations"]["edldist/group"]: name
        for (kind, name), each in objects.items()
        if kind == "Deployment" and "edldist/group" in each["metadata"]["annotations"]
    }
    assert groups["small"] == "digits-small" and groups["Big_One"].startswith("digits-big-one-")
    small = objects["Deployment", "digits-small"]
    assert small["spec"]["replicas"] == 3
    labels = {"edldist/job": "digits", "edldist/kind": "teacher", "edldist/role": "small"}
    assert small["spec"]["selector"]["matchLabels"] == labels
    assert small["spec"]["template"]["metadata"]["labels"].items() >= labels.items()
    budget = objects["PodDisruptionBudget", "digits-small"]
    assert budget["spec"]["selector"]["matchLabels"] == labels
    container = main(objects, "Deployment", "digits-small")
    assert container["image"] == "own:2" and variables(container)["A"] == "b"
    assert pod(objects, "Deployment", "digits-small")["nodeSelector"] == {"pool": "cpu"}
    command = container["command"]
    assert command[:2] == ["edldist", "teacher"] and command[-2:] == ["--http", "*:7072"]
    for option, value in (("--id", "$(POD_NAME)"), ("--name", "small"), ("--model", "a:b")):
        assert command[command.index(option) + 1] == value
    assert command[command.index("--coordinator") + 1] == "tcp://digits-coordinator:7070"
    assert main(objects, "Deployment", groups["Big_One"])["image"] == "all:1"
    big = main(objects, "Deployment", groups["Big_One"])["command"]
    assert big[big.index("--name") + 1] == "Big_One"


def test_resources_are_those_of_the_role(folder: Path) -> None:
    objects = rendered(
        folder,
        "teachers.0.resources={gpus: 2, cpus: 8, memory: 24GiB, gpu_type: a100}",
        "student.resources={cpus: 16, memory: 1TiB}",
        "student.nproc_per_node=4",
        "coordinator.resources={cpus: 2, memory: 512MiB}",
        "kubernetes={gpu_resource: amd.com/gpu, gpu_label: kind}",
    )
    teacher = main(objects, "Deployment", "edldist-teacher")
    assert teacher["resources"] == {
        "requests": {"cpu": "8", "memory": "24Gi"},
        "limits": {"memory": "24Gi", "amd.com/gpu": 2},
    }
    spec = pod(objects, "Deployment", "edldist-teacher")
    assert spec["nodeSelector"] == {"kind": "a100"}
    assert {"key": "amd.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    student = main(objects, "Job", "edldist-student")
    assert student["resources"] == {"requests": {"cpu": "16", "memory": "1Ti"}, "limits": {"memory": "1Ti"}}
    assert variables(student)["OMP_NUM_THREADS"] == "4"
    assert "tolerations" not in pod(objects, "Job", "edldist-student")
    coordinator = main(objects, "Deployment", "edldist-coordinator")
    assert coordinator["resources"]["requests"] == {"cpu": "2", "memory": "512Mi"}


def test_threads_that_the_job_file_chooses_are_kept(folder: Path) -> None:
    objects = rendered(folder, "student.nproc_per_node=auto", "student.env={OMP_NUM_THREADS: 3}")
    assert variables(main(objects, "Job", "edldist-student"))["OMP_NUM_THREADS"] == "3"
    objects = rendered(folder, "student.nproc_per_node=gpu")
    names = [each["name"] for each in main(objects, "Job", "edldist-student")["env"]]
    assert "OMP_NUM_THREADS" not in names  # the node shares what it finds


def test_a_group_that_is_scaled_has_a_scaler_and_no_number(folder: Path) -> None:
    ranged = "teachers.0.replicas={min: 1, max: 6}"
    assert rendered(folder, ranged)["Deployment", "edldist-teacher"]["spec"]["replicas"] == 1
    objects = rendered(folder, ranged, "kubernetes={autoscaler: keda, autoscaler_namespace: scaling}")
    assert "replicas" not in objects["Deployment", "edldist-teacher"]["spec"]
    scaler = objects["ScaledObject", "edldist-teacher"]["spec"]
    assert (scaler["minReplicaCount"], scaler["maxReplicaCount"]) == (1, 6)
    (trigger,) = scaler["triggers"]
    assert trigger["metadata"]["url"] == "http://edldist-coordinator.lab.svc:7071/scaling/teacher"
    reference = objects["TriggerAuthentication", "edldist-teacher"]["spec"]["secretTargetRef"][0]
    assert (reference["name"], reference["key"]) == ("edldist-secret", "http-token")
    (rule,) = objects["NetworkPolicy", "edldist-keda"]["spec"]["ingress"]
    assert rule["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "scaling"}}}
    ]
    kinds = {kind for kind, _ in rendered(folder, "kubernetes={autoscaler: keda}")}
    assert "ScaledObject" not in kinds  # a number that stands is nobody's to change


def test_nothing_that_the_job_file_says_is_taken_for_a_variable_of_the_pod(folder: Path) -> None:
    objects = rendered(
        folder, "student.args=['$(HOME)', '$$x', a$]", "student.env={A: $(HOME)}", "teachers.0.env={B: $(A)}"
    )
    student = main(objects, "Job", "edldist-student")
    assert student["command"][-3:] == ["$$(HOME)", "$$$$x", "a$$"]
    assert variables(student)["A"] == "$$(HOME)"
    assert variables(main(objects, "Deployment", "edldist-teacher"))["B"] == "$$(A)"


def test_output_lies_in_a_claim_that_is_there_or_made_or_in_an_object_store(folder: Path) -> None:
    made = rendered(
        folder, "kubernetes={storage_class: shared, storage_size: 1TiB, storage_access: ReadWriteOnce}"
    )
    claim = made["PersistentVolumeClaim", "edldist-output"]["spec"]
    assert claim == {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "shared",
        "resources": {"requests": {"storage": "1Ti"}},
    }
    there = rendered(folder, "name=Run_1", "kubernetes={claim: results}")
    assert "PersistentVolumeClaim" not in {kind for kind, _ in there}
    (student,) = [name for kind, name in there if kind == "Job" and name.endswith("-student")]
    own = student.removesuffix("-student")
    assert variables(main(there, "Job", student))["EDLDIST_OUTPUT"] == f"/output/{own}"
    command = main(there, "Deployment", f"{own}-coordinator")["command"]
    assert command[command.index("--output") + 1] == f"/output/{own}"
    for kind, name in (("Deployment", f"{own}-coordinator"), ("Job", student)):
        sources = {each["name"]: each for each in pod(there, kind, name)["volumes"]}
        assert sources["output"]["persistentVolumeClaim"] == {"claimName": "results"}
    store = rendered(folder, "kubernetes={object_store: 's3://bucket/run', secrets: [s3]}")
    assert "PersistentVolumeClaim" not in {kind for kind, _ in store}
    student = main(store, "Job", "edldist-student")
    assert variables(student)["EDLDIST_OUTPUT"] == "s3://bucket/run"
    followed = rendered(
        folder, "teachers.0.weights='follow:{output}/w'", "kubernetes={object_store: 's3://bucket/run'}"
    )
    assert "follow:s3://bucket/run/w" in str(
        [main(followed, *key) for key in followed if key[0] == "Deployment"]
    )
    assert student["envFrom"] == [{"secretRef": {"name": "s3"}}]
    sources = {each["name"]: each for each in pod(store, "Job", "edldist-student")["volumes"]}
    assert sources["output"] == {"name": "output", "emptyDir": {}}
    with pytest.raises(ConfigError, match="give kubernetes.claim beside kubernetes.object_store"):
        rendered(folder, "prepare={script: prepare.py}", "kubernetes={object_store: 's3://b'}")


def test_volumes_are_mounted_where_the_job_file_says(folder: Path) -> None:
    objects = rendered(
        folder,
        "kubernetes={volumes: [{path: /data, claim: images}, {path: /more, claim: images, sub_path: a, "
        "read_only: false}, {path: /own, sub_path: build, read_only: false}]}",
    )
    for kind, name, own in (
        ("Job", "edldist-student", "output"),
        ("Deployment", "edldist-teacher", "claim-1"),
    ):
        mounts = {each["mountPath"]: each for each in main(objects, kind, name)["volumeMounts"]}
        claims = {
            each["name"]: each["persistentVolumeClaim"]["claimName"]
            for each in pod(objects, kind, name)["volumes"]
            if "persistentVolumeClaim" in each
        }
        images = mounts["/data"]["name"]
        assert mounts["/data"] == {"name": images, "mountPath": "/data", "readOnly": True}
        assert mounts["/more"] == {"name": images, "mountPath": "/more", "subPath": "a"}
        assert mounts["/own"] == {"name": own, "mountPath": "/own", "subPath": "edldist-build"}
        assert claims == {images: "images", own: "edldist-output"}
    with pytest.raises(ConfigError, match="/own is to be of the job's own claim"):
        rendered(folder, "kubernetes={object_store: 's3://b', volumes: [{path: /own}]}")


def test_a_queue_takes_those_who_compute(folder: Path) -> None:
    objects = rendered(folder, "kubernetes={queue: lab, teachers: {teacher: {queue: cheap}}}")
    key = "kueue.x-k8s.io/queue-name"
    assert objects["Deployment", "edldist-teacher"]["metadata"]["labels"][key] == "cheap"
    student = objects["Job", "edldist-student"]
    assert student["metadata"]["labels"][key] == "lab"
    assert student["metadata"]["annotations"]["kueue.x-k8s.io/job-min-parallelism"] == "1"
    assert key not in objects["Deployment", "edldist-coordinator"]["metadata"]["labels"]


def test_a_role_may_do_without_what_the_whole_job_has(folder: Path) -> None:
    objects = rendered(
        folder,
        "teachers.0.resources={gpus: 1, gpu_type: h100}",
        "kubernetes={queue: lab, priority_class: p, node_selector: {pool: a}, teachers: {teacher: {queue: "
        "'', priority_class: '', gpu_label: '', node_selector: {}}}}",
    )
    teacher, student = pod(objects, "Deployment", "edldist-teacher"), pod(objects, "Job", "edldist-student")
    assert (student["priorityClassName"], student["nodeSelector"]) == ("p", {"pool": "a"})
    assert "priorityClassName" not in teacher and "nodeSelector" not in teacher
    labels = objects["Deployment", "edldist-teacher"]["metadata"]["labels"]
    assert not [key for key in labels if key.startswith("kueue")]


@pytest.mark.parametrize("extend", [False, True])
def test_students_go_on_with_another_teacher_where_somebody_says_so(folder: Path, extend: bool) -> None:
    (folder / "job.yaml").write_text(JOB)
    words = ["render", "k8s", "job.yaml", *(["--extend"] if extend else [])]
    told = CliRunner().invoke(cli, words, standalone_mode=False)
    objects = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(told.stdout)}
    assert ("EDLDIST_EXTEND" in variables(main(objects, "Job", "edldist-student"))) is extend


def test_a_secret_that_a_job_file_sets_is_warned_of_without_its_value(folder: Path) -> None:
    (folder / "job.yaml").write_text(JOB)
    setting = "student.env={HF_TOKEN: hf_zzz, PGPASSWORD: zzz, LANG: C, SSH_KEY_FILE: /k}"
    told = CliRunner().invoke(cli, ["render", "k8s", "job.yaml", "--set", setting], standalone_mode=False)
    assert told.stderr.startswith("warning: env of student sets HF_TOKEN, PGPASSWORD, which whoever may read")
    assert "NAME --from-literal=HF_TOKEN=... --from-literal=PGPASSWORD=...)" in told.stderr
    assert "zzz" not in told.stderr and "LANG" not in told.stderr
    told = CliRunner().invoke(cli, ["render", "k8s", "job.yaml"], standalone_mode=False)
    assert told.stderr == ""


def test_a_container_that_is_started_again_counts_its_starts_in_its_pod(folder: Path) -> None:
    objects = rendered(folder)
    teacher = main(objects, "Deployment", "edldist-teacher")
    file = Path(teacher["command"][teacher["command"].index("--attempt-file") + 1])
    volumes = {each["name"]: each for each in pod(objects, "Deployment", "edldist-teacher")["volumes"]}
    (mount,) = [each for each in teacher["volumeMounts"] if Path(each["mountPath"]) == file.parent]
    assert volumes[mount["name"]] == {"name": "tmp", "emptyDir": {}} and "--attempt" not in teacher["command"]


def test_spot_machines_are_for_the_teachers_that_may_be_there(folder: Path) -> None:
    objects = rendered(
        folder,
        "teachers=[{name: a, model: 'a:b'}, {name: b, model: 'a:b'}]",
        "kubernetes={spot: true, tolerations: [{key: mine}], teachers: {b: {spot: false}}}",
    )
    keys = [each["key"] for each in pod(objects, "Deployment", "edldist-a")["tolerations"]]
    assert "cloud.google.com/gke-spot" in keys and keys[-1] == "mine"
    assert "affinity" in pod(objects, "Deployment", "edldist-a")
    for kind, name in (("Deployment", "edldist-b"), ("Job", "edldist-student")):
        assert pod(objects, kind, name)["tolerations"] == [{"key": "mine", "operator": "Exists"}]


def test_pods_get_the_time_that_the_job_file_gives(folder: Path) -> None:
    objects = rendered(folder, "grace={drain_s: 30, student_s: 50, kill_s: 60.5}", "kubernetes={spot: true}")
    assert pod(objects, "Job", "edldist-student")["terminationGracePeriodSeconds"] == 61
    student = main(objects, "Job", "edldist-student")["command"]
    assert student[student.index("--grace-s") + 1] == "50.0"
    assert pod(objects, "Deployment", "edldist-teacher")["terminationGracePeriodSeconds"] == 25
    teacher = main(objects, "Deployment", "edldist-teacher")["command"]
    assert teacher[teacher.index("--drain-s") + 1] == "15.0"
    teacher = main(rendered(folder), "Deployment", "edldist-teacher")["command"]
    assert teacher[teacher.index("--drain-s") + 1] == "20.0"


def test_an_ended_job_is_kept_for_so_long(folder: Path) -> None:
    student = rendered(folder, "kubernetes={keep_s: 60}")["Job", "edldist-student"]["spec"]
    assert student["ttlSecondsAfterFinished"] == 60 and student["parallelism"] == 2


def test_policies_and_monitors_come_as_asked(folder: Path) -> None:
    kinds = [kind for kind, _ in rendered(folder, "kubernetes={network_policy: false}")]
    assert "NetworkPolicy" not in kinds and "ServiceMonitor" not in kinds
    objects = rendered(folder, "name=digits", "kubernetes={monitor: true, monitor_namespace: watch}")
    monitor = objects["ServiceMonitor", "digits-prometheus"]["spec"]
    assert monitor["selector"]["matchLabels"]["edldist/job"] == "digits"
    shown = monitor["endpoints"][0]["authorization"]["credentials"]
    assert shown["key"] in objects["Secret", shown["name"]]["stringData"]
    rules = objects["PrometheusRule", "digits-prometheus"]["spec"]["groups"][0]["rules"]
    assert all('service="digits-coordinator"' in rule["expr"] for rule in rules)
    (rule,) = objects["NetworkPolicy", "digits-prometheus"]["spec"]["ingress"]
    assert rule["from"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "watch"}


def test_what_is_printed_is_what_was_made(folder: Path) -> None:
    (folder / "job.yaml").write_text(JOB)
    objects = render(plan_in_image(folder / "job.yaml"), "lab", "no")
    text = dump(objects)
    assert list(yaml.safe_load_all(text)) == objects
    assert "  job.yaml: |\n    name: edldist\n" in text
    (folder / "again.yaml").write_text(
        next(each["data"]["job.yaml"] for each in objects if each["kind"] == "ConfigMap")
    )
    assert load_job(folder / "again.yaml").name == "edldist"


@pytest.mark.parametrize(
    ("where", "script", "leads"),
    [
        ("job.yaml", "train.py", "/job/train.py"),
        ("jobs/digits/job.yaml", "train.py", "/job/train.py"),
        ("jobs/digits/job.yaml", "beside.py", "/job/jobs/digits/beside.py"),
        ("jobs/digits/job.yaml", "/opt/train.py", "/opt/train.py"),
    ],
)
def test_paths_lead_to_the_same_place_in_the_image(folder: Path, where: str, script: str, leads: str) -> None:
    place = folder / where
    place.parent.mkdir(parents=True, exist_ok=True)
    (folder / "jobs").mkdir(exist_ok=True)
    (place.parent / "beside.py").touch()
    (place.parent / "w").touch()
    place.write_text(JOB)
    plan = plan_in_image(
        place, [f"student.script={script}", "teachers.0.weights=w", "teachers.0.model=hf:models/big#Class"]
    )
    assert plan.job.student.script == leads
    assert plan.beside == Path("/job", *Path(where).parent.parts)
    assert plan.job.teachers[0].weights == str(plan.beside / "w")
    later = "models/big" if plan.beside != Path("/job") else "/job/models/big"  # workers look in both folders
    assert plan.job.teachers[0].model == f"hf:{later}#Class"


def test_the_files_of_an_engine_are_looked_for_in_the_image(folder: Path) -> None:
    (folder / "s.py").touch()
    (folder / "job.yaml").write_text(JOB)
    engine = "teachers.0={model: 'sglang:http://h:30000', kwargs: {tokenizer: models/t, retries: 3}}"
    teacher = plan_in_image(folder / "job.yaml", ["student.script=s.py", engine]).job.teachers[0]
    assert teacher.model == "sglang:http://h:30000"
    assert teacher.kwargs == {"tokenizer": "/job/models/t", "retries": 3}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (
            "student.script=../mine/x.py",
            "student.script: ../mine/x.py leads to /mine/x.py in the image",
        ),
        ("prepare={script: ../mine/x.py}", "prepare.script: ../mine/x.py leads"),
        ("teachers.0.weights=../mine/w", r"teachers\[0\].weights: ../mine/w leads"),
        ("teachers.0.vocabulary=../none", r"teachers\[0\].vocabulary: ../none leads"),
        ("teachers.0.model=hf:../mine", r"teachers\[0\].model: ../mine leads to /mine in"),
    ],
)
def test_a_path_that_leads_out_of_the_image_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, override: str, says: str
) -> None:
    job, mine = folder / "job", folder / "mine"
    for each in (job / "sub", mine):
        each.mkdir(parents=True)
    for file in (job / "train.py", mine / "x.py", mine / "w", job / "sub" / "s.py"):
        file.touch()
    (job / "job.yaml").write_text(JOB)
    monkeypatch.chdir(job)
    with pytest.raises(ConfigError, match=says):
        plan_in_image(Path("job.yaml"), [override])
    inside = plan_in_image(
        Path("job.yaml"), ["student.script=sub/../sub/s.py", f"teachers.0.weights={mine}/w"]
    )
    assert inside.job.student.script == "/job/sub/s.py"
    assert inside.job.teachers[0].weights == f"{mine}/w", "of the image, or of a volume"


def test_a_script_that_is_nowhere_or_in_two_places_is_refused(folder: Path) -> None:
    (folder / "job.yaml").write_text(JOB)
    with pytest.raises(ConfigError, match=r"student.script: no such file: none.py \(looked from /"):
        plan_in_image(folder / "job.yaml", ["student.script=none.py"])
    (folder / "sub").mkdir()
    (folder / "sub" / "job.yaml").write_text(JOB)
    (folder / "sub" / "train.py").touch()
    with pytest.raises(
        ConfigError, match=r"student.script: train.py could be .*/train.py or .*/sub/train.py"
    ):
        plan_in_image(folder / "sub" / "job.yaml")
