"""The launch contract on Kubernetes, against an API of the test's own."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from edldist.errors import ConfigError, LaunchError
from edldist.keys.folder import KeyFolder
from edldist.keys.pair import ROLES
from edldist_launch.contract.job_keys import use_keys_of
from edldist_launch.contract.submission import Submission, find_submission
from edldist_launch.kubernetes.backend import KubernetesBackend
from edldist_launch.kubernetes.kubectl import Answer, Run
from edldist_launch.record.folder import FolderHeldError, JobFolder
from tests.unit.kubernetes_api import FakeApi
from tests.unit.kubernetes_jobs import ended, job_folder, plan_of, submitted


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return job_folder(tmp_path, monkeypatch)


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


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
        ("{secrets: [none]}", "kubernetes.secrets: none is not there"),
        ("{student: {secrets: [none]}}", "kubernetes.secrets: none is not there"),
        ("{pull_secrets: [none]}", "kubernetes.pull_secrets: none is not there"),
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
