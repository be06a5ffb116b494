"""A job on Slurm by the launch contract: whole or not at all, found again, scaled, read and ended."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

import edldist_launch.slurm.backend
from edldist.errors import ConfigError, LaunchError
from edldist.files import lock_file
from edldist.keys.folder import KeyFolder
from edldist_launch.contract.submission import find_submission
from edldist_launch.contract.wishes import read_wishes
from edldist_launch.record.folder import FolderHeldError
from edldist_launch.slurm.backend import SlurmBackend
from edldist_launch.slurm.queued import QueuedTask
from tests.unit.fake_slurm import FakeSlurm
from tests.unit.slurm_jobs import Job


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_everything_is_queued_and_nothing_starts_before_all_of_it_is(job: Job) -> None:
    job.start()
    given = [(path.name, options) for path, options in job.slurm.submitted]
    assert given == [
        ("prepare.sh", ("--hold",)),
        ("coordinator.sh", ("--hold", "--dependency=singleton,afterok:1")),
        ("teacher.teacher.sh", ("--array=0-1", "--dependency=after:2,afterok:1")),
        ("student.sh", ("--array=0-1", "--dependency=after:2,afterok:1")),
    ]
    assert job.slurm.released == ["2", "1"]
    submission = find_submission(job.output)
    assert submission is not None and (submission.backend, submission.job) == ("slurm", "digits")


def test_a_job_without_a_preparation_waits_for_nothing_else(tmp_path: Path) -> None:
    job = Job(tmp_path, "prepare=null", "teachers.0.replicas={min: 0, max: 2}")
    job.start()
    assert [options for _, options in job.slurm.submitted] == [
        ("--hold",),
        ("--array=0-0", "--dependency=after:1"),
        ("--array=0-1", "--dependency=after:1"),
    ]


def test_a_job_has_keys_of_its_own_and_its_scripts_name_their_folder(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("EDLDIST_KEYS", "EDLDIST_INSECURE"):
        monkeypatch.delenv(variable, raising=False)
    job.start()
    keys = job.output / "keys"
    assert {path.stat().st_mode & 0o777 for path in keys.glob("*.key")} == {0o600}
    secrets = [json.loads(path.read_text())["secret"] for path in keys.glob("*.key")]
    named = f"export EDLDIST_KEYS={keys}"
    scripts = {path.name: path.read_text() for path in (job.output / "slurm").glob("*.sh")}
    assert {name for name, text in scripts.items() if named in text} == {
        *("coordinator.sh", "teacher.teacher.sh", "student.sh")
    }
    others = [path for path in job.output.rglob("*") if path.is_file() and path.suffix != ".key"]
    assert len(secrets) == 4 and len(others) > 5
    assert not [path for path in others for secret in secrets if secret in path.read_text(errors="replace")]
    submission = find_submission(job.output)
    assert submission is not None and submission.link == {"EDLDIST_KEYS": str(keys)}


def test_a_job_without_keys_says_so_in_its_scripts(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDLDIST_KEYS", raising=False)
    monkeypatch.setenv("EDLDIST_INSECURE", "1")
    job.start()
    assert not (job.output / "keys").exists()
    assert "export EDLDIST_INSECURE=1" in (job.output / "slurm" / "coordinator.sh").read_text()
    submission = find_submission(job.output)
    assert submission is not None and submission.link == {"EDLDIST_INSECURE": "1"}


def test_keys_that_are_not_whole_queue_nothing(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = KeyFolder(tmp_path / "team")
    team.make()
    (team.path / "coordinator.key").unlink()
    monkeypatch.setenv("EDLDIST_KEYS", str(team.path))
    with pytest.raises(ConfigError, match="has none of the keys that a coordinator needs"):
        job.start()
    assert job.slurm.submitted == [] and not job.output.exists()


def test_a_job_may_be_tried_without_a_trace(job: Job) -> None:
    assert job.backend.try_out(job.plan) == [
        "prepare: to start soon ",
        "coordinator: to start soon ",
        "teacher: to start soon --array=0",
        "student: to start soon --array=0",
    ]
    job.slurm.refuses["teacher.teacher"] = "Invalid partition name specified"
    with pytest.raises(LaunchError, match="^teacher: sbatch: Invalid partition name specified$"):
        job.backend.try_out(job.plan)
    assert job.slurm.submitted == [] and not job.output.exists()
    del job.slurm.refuses["teacher.teacher"]
    job.start()
    with pytest.raises(LaunchError, match="job digits runs in"):
        job.backend.try_out(job.plan)


def test_who_submits_looks_for_a_job_while_nobody_else_can_submit(job: Job) -> None:
    held = []
    look = job.slurm.queue

    def queue(names: Sequence[str]) -> list[QueuedTask]:
        with (job.output / ".lock").open("a") as stream:
            held.append(not lock_file(stream.fileno(), job.output))
        return look(names)

    job.slurm.queue = queue  # type: ignore[method-assign]
    job.start()
    assert held and all(held), "another submission could have come in between"


def test_a_submission_that_another_one_precedes_leaves_that_ones_folder_alone(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(path: Path, *about: object) -> None:
        path.mkdir()
        (path / "job.yaml").write_text("another's")
        raise FolderHeldError("another run is writing")

    monkeypatch.setattr(edldist_launch.slurm.backend, "JobFolder", opened)
    with pytest.raises(FolderHeldError):
        job.start()
    assert (job.output / "job.yaml").read_text() == "another's"


@pytest.mark.parametrize("refused", ["prepare", "coordinator", "teacher.teacher", "student"])
def test_what_was_queued_before_a_refusal_is_cancelled_and_slurm_has_the_word(job: Job, refused: str) -> None:
    job.slurm.refuses[refused] = "Invalid partition name specified"
    role = refused.removeprefix("teacher.")
    with pytest.raises(LaunchError, match=f"^{role}: sbatch: Invalid partition name specified$"):
        job.start()
    assert job.slurm.tasks == {} and not job.output.exists()
    del job.slurm.refuses[refused]
    job.start()
    assert len(job.slurm.tasks) == 6


def test_a_cluster_that_vanishes_in_mid_submit_leaves_nothing_that_starts_nor_stays(job: Job) -> None:
    submit = job.slurm.submit

    def vanish(script: Path, *options: str) -> str:
        if script.stem == "student":
            job.slurm.silent = {"submit", "queue", "cancel"}
        return submit(script, *options)

    job.slurm.submit = vanish  # type: ignore[method-assign]
    with pytest.raises(LaunchError) as caught:
        job.start()
    assert "submit: Unable to contact slurm controller" in str(caught.value)
    assert (
        f"could not be cancelled (queue: Unable to contact slurm controller (connect failure)): the same "
        f"command, or edldist stop --output {job.output}, removes them" in str(caught.value)
    )
    assert job.slurm.held == {"1", "2"}, "none of it can start"
    job.slurm.silent, job.slurm.submit = set(), submit  # type: ignore[method-assign]
    left = list(job.slurm.tasks)
    job.start()
    assert set(left) <= set(job.slurm.cancelled) and len(job.slurm.tasks) == 6


def test_what_a_submission_left_can_be_stopped_too(job: Job) -> None:
    job.slurm.refuses["student"] = "no"
    job.slurm.silent = {"cancel"}
    with pytest.raises(LaunchError, match="may be left in the queue"):
        job.start()
    job.slurm.silent = set()
    job.found().stop()
    assert job.slurm.tasks == {}


def test_a_second_submission_is_refused_with_what_runs_and_how_to_end_it(job: Job) -> None:
    job.start()
    with pytest.raises(
        LaunchError, match=r"digits runs in .*/out \(Slurm jobs 1, 2, 3, 4\): wait .*edldist stop"
    ):
        job.found().start(job.plan)
    assert len(job.slurm.tasks) == 6


def test_what_a_person_is_to_type_is_written_for_a_shell(tmp_path: Path) -> None:
    folder = tmp_path / "a job's"
    folder.mkdir()
    job = Job(folder)
    job.start()
    with pytest.raises(LaunchError) as caught:
        job.found().start(job.plan)
    command = str(caught.value).partition("(edldist ")[2].partition("), or")[0]
    assert shlex.split(command) == ["stop", "--output", str(job.output)]


def test_a_job_that_has_ended_may_be_submitted_again(job: Job) -> None:
    job.start()
    job.leave("student-0", 143)
    job.slurm.end(*list(job.slurm.tasks))
    job.start()
    assert job.files.ended() == {} and len(job.slurm.tasks) == 6


def test_nothing_is_known_of_a_folder_without_a_submission(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=f"no job was started in {tmp_path}"):
        SlurmBackend(tmp_path, slurm=FakeSlurm()).state()


def test_numbers_are_left_for_the_placer_all_of_them_or_none(job: Job) -> None:
    job.start()
    job.found().scale({"teacher": 8, "student": 1})
    assert read_wishes(job.output) == {"teacher": 8, "student": 1}
    for wrong in ({"teacher": 9}, {"student": 0}, {"nobody": 1}, {"nobody": None}, {"coordinator": 2}):
        with pytest.raises(ConfigError):
            job.found().scale({"student": 2, **wrong})  # type: ignore[dict-item]
    assert read_wishes(job.output) == {"teacher": 8, "student": 1}
    job.found().scale({"teacher": None})
    assert read_wishes(job.output) == {"student": 1}
    assert job.found().state().role("student").held == 1
    job.files.note_wanted({"teacher": 5, "student": 1})
    assert [job.found().state().role(name).wanted for name in ("teacher", "student")] == [5, 1]


def test_a_job_that_does_not_run_is_not_scaled(job: Job) -> None:
    job.start()
    job.slurm.end(*list(job.slurm.tasks))
    with pytest.raises(LaunchError, match="does not run any more: it failed"):
        job.found().scale({"teacher": 3})


def test_a_stop_lets_students_leave_first_then_workers_then_the_placer(job: Job) -> None:
    job.start()
    job.slurm.end("1")
    job.slurm.run("2", "3_0", "4_0")
    order: list[str] = []

    def obey() -> None:
        for engine_id in [each for each in job.slurm.asked if each in job.slurm.tasks]:
            order.append(engine_id)
            job.slurm.end(engine_id)
        if order == ["4_0", "3_0"] and "2" in job.slurm.tasks:
            order.append("2")
            job.slurm.end("2")

    job.meanwhile = obey
    job.found().stop()
    assert order == ["4_0", "3_0", "2"] and job.files.stopping and job.slurm.tasks == {}
    assert job.slurm.cancelled == ["4_1", "3_1"], "those that had not started"
    job.found().stop()  # once more is no error


def test_whoever_does_not_leave_in_time_is_cancelled_as_is_a_coordinator_that_hangs(job: Job) -> None:
    job.start()
    job.slurm.end("1")
    job.slurm.run("2", "3_0", "3_1", "4_0", "4_1")
    job.found().stop(grace_s=0.0)
    assert job.slurm.tasks == {} and set(job.slurm.cancelled) == {"4_0", "4_1", "3_0", "3_1", "2"}
