"""A job on Kubernetes that prepares something first: who waits for it, and what a failure means for them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from edldist_launch.kubernetes.kustomization import MANIFESTS, read_kustomization
from edldist_launch.kubernetes.render import dump, new_token, render
from edldist_launch.kubernetes.resolve import plan_in_image
from tests.unit.kubernetes_objects import JOB, main, pod, rendered


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").touch()
    (tmp_path / "prepare.py").touch()
    return tmp_path


def test_everybody_waits_for_what_is_prepared(folder: Path) -> None:
    objects = rendered(folder, "prepare={script: prepare.py, args: [--all, '$(HOME)']}")
    prepare = main(objects, "Job", "edldist-prepare")
    *shell, script, marker = prepare["command"][:4]
    assert shell == ["sh", "-ec"] and marker.startswith("/output/edldist/.prepared-")
    assert script.startswith('mkdir -p "${0%/*}"\n') and script.endswith('touch "$0"\n')
    assert prepare["command"][4:] == ["python", "-u", "/job/prepare.py", "--all", "$$(HOME)"]
    for kind, name in (
        ("Deployment", "edldist-coordinator"),
        ("Deployment", "edldist-teacher"),
        ("Job", "edldist-student"),
    ):
        first = pod(objects, kind, name)["initContainers"][0]
        assert first["command"][-1] == marker
    assert main(objects, "Job", "edldist-end")["command"][-2:] == ["--given-up-file", f"{marker}.failed"]
    mounts = {each["name"]: each for each in main(objects, "Job", "edldist-end")["volumeMounts"]}
    assert mounts["output"] == {"name": "output", "mountPath": "/output", "readOnly": True}
    alone = rendered(folder)
    assert "initContainers" not in pod(alone, "Deployment", "edldist-teacher")
    assert "--given-up-file" not in main(alone, "Job", "edldist-end")["command"]


def test_two_submissions_do_not_take_each_others_preparation_for_theirs(folder: Path) -> None:
    (folder / "job.yaml").write_text(JOB)
    plan = plan_in_image(folder / "job.yaml", ["prepare={script: prepare.py}"])
    first, second = dump(render(plan, "lab", new_token())), dump(render(plan, "lab", new_token()))
    assert first != second
    markers = [
        set(line.strip() for line in text.splitlines() if ".prepared-" in line) for text in (first, second)
    ]
    assert markers[0].isdisjoint(markers[1]) and len(markers[0]) == 2, "done, and failed"


class Prepared:
    """What the pods of a preparation run, and who waits for it, here."""

    def __init__(self, folder: Path) -> None:
        objects = rendered(folder, "prepare={script: prepare.py}")
        self._shell = main(objects, "Job", "edldist-prepare")["command"][:3]
        self._shell[2] = self._shell[2].replace("/etc/edldist/job.yaml", str(folder / "job.yaml"))
        self._waits = pod(objects, "Job", "edldist-student")["initContainers"][0]["command"][:3]
        self.job = objects["Job", "edldist-student"]["spec"]
        self.attempts = 1 + objects["Job", "edldist-prepare"]["spec"]["backoffLimit"]
        self.marker = folder / "output" / ".prepared-1"

    def attempt(self, *command: str) -> int:
        """The exit code of a pod whose preparation is a command."""
        return subprocess.run([*self._shell, str(self.marker), *command], timeout=20).returncode

    def waiter(self, within_s: float = 20.0) -> int:
        """The exit code of a student's init container."""
        return subprocess.run([*self._waits, str(self.marker)], timeout=within_s).returncode


def test_students_end_once_the_attempts_to_prepare_have_failed(folder: Path) -> None:
    made = Prepared(folder)
    assert [made.attempt("sh", "-c", "exit 7"), made.attempt("sh", "-c", "kill -9 $$")] == [7, 137]
    with pytest.raises(subprocess.TimeoutExpired):
        made.waiter(0.3)
    assert made.attempt("sh", "-c", "exit 7") == 7
    assert made.waiter() == 2
    rule = made.job["podFailurePolicy"]["rules"][0]
    assert (rule["action"], rule["onExitCodes"]["containerName"]) == ("FailJob", "prepared")
    assert rule["onExitCodes"]["values"] == [2]
    base = next(
        each
        for each in read_kustomization(MANIFESTS / "base")
        if each["metadata"]["name"] == "edldist-student"
    )
    assert made.job["podFailurePolicy"]["rules"][1:] == base["spec"]["podFailurePolicy"]["rules"]


def test_an_attempt_that_was_killed_with_its_shell_is_told_by_the_next(folder: Path) -> None:
    made = Prepared(folder)
    for _ in range(made.attempts - 1):
        assert made.attempt("sh", "-c", "kill -9 $PPID") == -9
    with pytest.raises(subprocess.TimeoutExpired):
        made.waiter(0.3)
    assert made.attempt("touch", str(folder / "ran")) == 75 and not (folder / "ran").exists()
    assert made.waiter() == 2 and not made.marker.exists()


def test_an_attempt_that_works_lets_everybody_begin(folder: Path) -> None:
    made = Prepared(folder)
    assert made.attempt("false") == 1
    assert made.attempt("true") == 0 and made.waiter() == 0
    assert (made.marker.parent / "job.yaml").read_text() == (folder / "job.yaml").read_text()
