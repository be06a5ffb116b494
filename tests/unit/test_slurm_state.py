"""What is seen of a job on Slurm: its processes, its end, its logs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edldist.errors import ConfigError, LaunchError
from edldist_launch.view.logs import logs_of
from tests.unit.slurm_jobs import Job


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_the_state_tells_every_process_with_slurms_word_for_it(job: Job) -> None:
    job.start()
    state = job.found().state()
    assert (state.phase, state.reason, state.coordinator) == ("pending", "Dependency", None)
    job.slurm.end("1")
    job.leave("prepare", 0)
    job.slurm.run("2", "3_0", "4_1", where="n7")
    job.files.layout.address_file.write_text('{"address": "tcp://10.0.0.7:4000"}')
    (job.output / "logs" / "teacher-0" / "0").mkdir(parents=True)
    (job.output / "logs" / "teacher-0" / "1").mkdir()
    state = job.found().state()
    assert (state.phase, state.coordinator) == ("running", f"file:{job.output}/slurm/coordinator.json")
    first, second = state.role("teacher").processes
    assert (first.id, first.engine_id, first.phase, first.where, first.restarts) == (
        *("teacher-0", "3_0", "running", "n7"),
        1,
    )
    assert (second.phase, second.reason) == ("pending", "Dependency")
    assert [(p.id, p.phase) for p in state.role("prepare").processes] == [("prepare", "succeeded")]


def test_a_reason_for_which_one_would_wait_in_vain_is_explained(job: Job) -> None:
    job.start()
    job.slurm.tasks["4_0"] = replace(job.slurm.tasks["4_0"], reason="PartitionConfig")
    state = job.found().state()
    assert state.role("student").processes[0].reason == state.reason
    job.slurm.tasks["4_1"] = replace(job.slurm.tasks["4_1"], reason="launch failed requeued held")
    (_, held) = job.backend.state().role("student").processes
    assert held.reason.startswith("launch failed requeued held: Slurm could not start it on its host, and")
    assert state.reason.startswith("PartitionConfig: no host of its partition has as much as is asked for")


def test_a_coordinator_that_waits_to_take_over_is_not_shown(job: Job) -> None:
    job.start()
    job.slurm.run("2")
    job.slurm.submit(job.files.layout.script("coordinator", "coordinator"))
    assert job.roles()["coordinator"] == [("coordinator", "2", "running")]


def test_a_job_between_two_coordinators_goes_on_and_says_so(job: Job) -> None:
    job.start()
    job.slurm.end("1")
    job.files.layout.address_file.write_text('{"address": "tcp://10.0.0.7:4000"}')
    job.slurm.run("2", "4_0")
    job.slurm.submit(job.files.layout.script("coordinator", "coordinator"))
    assert (job.found().state().phase, job.found().state().reason) == ("running", "")
    job.slurm.end("2")
    state = job.found().state()
    assert (state.phase, state.reason) == (
        "running",
        "its coordinator has ended, and the next one waits in the queue (Dependency); "
        "labels flow on meanwhile",
    )
    job.slurm.run("5")
    assert job.found().state().reason == ""


def test_who_has_ended_is_told_with_the_code(job: Job) -> None:
    job.start()
    job.slurm.end("1", "2", "3_0", "3_1", "4_0", "4_1")
    job.leave("student-0", 0)
    job.leave("student-1", 1)
    state = job.found().state()
    assert [(p.id, p.phase, p.reason) for p in state.role("student").processes] == [
        ("student-0", "succeeded", ""),
        ("student-1", "failed", "exit code 1"),
    ]
    assert (state.phase, state.reason) == ("failed", "the job is gone without a result")
    (job.output / "result.json").write_text(json.dumps({"status": "completed"}))
    assert job.found().state().phase == "succeeded"


def test_whoever_failed_is_told_with_its_own_words(job: Job) -> None:
    job.start()
    for process in ("prepare", "coordinator", "teacher-1"):
        job.write(process, f"some lines\nOSError: {process} has no disk\n")
    job.slurm.end("1", "3_1")
    job.leave("prepare", 0)
    job.leave("teacher-1", 1)
    worker = job.found().state().role("teacher").processes[1]
    assert (worker.phase, worker.reason) == ("failed", "exit code 1: OSError: teacher-1 has no disk")
    job.slurm.end("2")
    job.leave("coordinator", 1)
    assert "exit code 1: OSError: coordinator has no disk: read its log" in job.found().state().reason
    job.leave("prepare", 1)
    reason = "the preparation failed (exit code 1): OSError: prepare has no disk"
    assert job.found().state().reason == reason


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"status": "failed", "reason": "teacher-0 cannot work"}, "teacher-0 cannot work"),
        ({"status": "failed"}, "the job is failed"),
        ({"status": "interrupted", "reason": "it was stopped"}, "the job is interrupted: it was stopped"),
    ],
)
def test_a_job_that_has_ended_says_why_as_its_result_does(
    job: Job, result: dict[str, str], reason: str
) -> None:
    job.start()
    job.slurm.end(*list(job.slurm.tasks))
    (job.output / "result.json").write_text(json.dumps(result))
    state = job.found().state()
    assert (state.phase, state.reason) == ("failed", reason)


def test_a_preparation_that_failed_has_failed_the_job(job: Job) -> None:
    job.start()
    job.slurm.end("1")
    job.leave("prepare", 3)
    state = job.found().state()
    assert (state.phase, state.reason) == ("failed", "the preparation failed (exit code 3)")


def test_who_serves_others_has_done_its_work_when_it_leaves_as_asked(job: Job) -> None:
    job.start()
    job.slurm.end(*list(job.slurm.tasks))
    for process in ("coordinator", "teacher-0", "student-0"):
        job.leave(process, 143)
    job.leave("teacher-1", 1)
    told = {p.id: (p.phase, p.reason) for role in job.found().state().roles for p in role.processes}
    assert told == {
        "coordinator": ("succeeded", ""),
        "teacher-0": ("succeeded", ""),
        "teacher-1": ("failed", "exit code 1"),
        "student-0": ("failed", "exit code 143"),  # it has more to do
    }


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        *((code, "the job is interrupted: it was stopped") for code in (143, 137)),
        (3, "the preparation failed (exit code 3)"),
    ],
)
def test_a_job_that_is_stopped_while_it_prepares_is_interrupted(job: Job, code: int, reason: str) -> None:
    job.start()
    job.slurm.run("1")
    job.found().stop()
    job.leave("prepare", code)  # by its script
    state = job.found().state()
    assert (state.phase, state.reason) == ("failed", reason)


def test_a_job_whose_coordinator_has_ended_says_so(job: Job) -> None:
    job.start()
    job.slurm.end("1", "2")
    job.slurm.run("4_0")
    assert "its coordinator was killed: read its log" in job.found().state().reason
    job.leave("coordinator", 1)
    assert "its coordinator has ended with exit code 1" in job.found().state().reason


def test_logs_are_those_of_a_role_or_of_all(job: Job) -> None:
    job.start()
    for process in ("student-0", "teacher-1", "coordinator", "slurm"):
        folder = job.output / "logs" / process / "0"
        folder.mkdir(parents=True)
        (folder / "log").write_text("hello\n")
    assert list(job.found().logs("student")) == ["student-0: hello"]
    assert list(job.found().logs()) == ["coordinator: hello", "student-0: hello", "teacher-1: hello"]
    with pytest.raises(ConfigError, match="no role `big`"):
        job.found().logs("big")


def test_logs_may_be_of_one_process(job: Job) -> None:
    job.start()
    job.write("teacher-0", "hello\n")
    job.write("teacher-1", "world\n")
    job.write("teacher-7", "I was here\n")  # and is not in the queue any more
    assert list(logs_of(job.found(), ["teacher-1"], False)) == ["teacher-1: world"]
    assert list(logs_of(job.found(), ["teacher-7"], False)) == ["teacher-7: I was here"]
    assert list(logs_of(job.found(), ["student-0"], False)) == [], "it has printed nothing yet"
    assert len(list(logs_of(job.found(), ["teacher"], False))) == 3
    for wrong in ("teacher-9", "teacher-", "big"):
        with pytest.raises(ConfigError, match=f"no role `{wrong}`"):
            logs_of(job.found(), [wrong], False)
    job.meanwhile = lambda: job.slurm.tasks.clear()
    assert list(logs_of(job.found(), ["teacher-0"], True)) == ["teacher-0: hello"]


def test_logs_are_followed_until_nothing_is_in_the_queue(job: Job) -> None:
    job.start()
    job.meanwhile = lambda: job.slurm.tasks.clear()
    assert list(job.found().logs(follow=True)) == []


def test_logs_are_followed_through_an_outage_of_slurm_which_is_said_once(
    job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    job.start()
    healthy = list(job.slurm.tasks)
    turns = iter(range(100))

    def meanwhile() -> None:
        turn = next(turns)
        if turn == 0:
            job.slurm.silent = {"queue"}
        elif turn == 5:
            job.write("student-0", "written meanwhile\n")
        elif turn == 10:
            job.slurm.silent = set()
        elif turn == 12:
            job.slurm.end(*healthy)

    job.meanwhile = meanwhile
    assert list(job.found().logs("student", follow=True)) == ["student-0: written meanwhile"]
    words = [record.getMessage() for record in caplog.records]
    assert len(words) == 2 and words[1] == "the engine tells again how the job is"
    assert words[0] == (
        "the engine does not tell how the job is (queue: Unable to contact slurm controller (connect "
        "failure)): asking again for up to 10 minutes"
    )


def test_an_outage_without_end_ends_what_follows_logs(job: Job) -> None:
    job.start()
    job.meanwhile = lambda: job.slurm.silent.add("queue")
    begun = job.clock.monotonic()
    with pytest.raises(LaunchError, match="has not told for 10 minutes how the job is: queue: Unable"):
        list(job.found().logs(follow=True))
    assert job.clock.monotonic() - begun > 600
    with pytest.raises(LaunchError, match=r"^queue: Unable to contact"):
        list(job.found().logs(follow=True))
