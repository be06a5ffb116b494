"""What a person is told of processes that are placed and not in the job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edldist.wire.messages import MemberStatus
from edldist_launch.contract.backend import JobState, ProcessState, RoleState
from edldist_launch.view.console import PlainConsole
from edldist_launch.view.placed import not_joined
from edldist_launch.view.status import show_status_of_folder


def member(member_id: str, role: str = "teacher") -> MemberStatus:
    return MemberStatus(
        id=member_id,
        role=role,  # type: ignore[arg-type]
        group="t",
        address="",
        process="p",
        host="h",
        pid=1,
        joined_s=1.0,
        silent_s=0.0,
        links=[],
        info={},
        stats={},
    )


def job(*processes: ProcessState, wanted: int = 1, role: str = "t", phase: str = "running") -> JobState:
    return JobState("toy", phase, roles=(RoleState(role, wanted, processes),))  # type: ignore[arg-type]


def test_processes_of_the_job_need_no_word() -> None:
    assert not_joined(job(ProcessState("t-0", "12", "running")), [member("t-0")]) == []
    assert not_joined(job(ProcessState("t-0", "12", "succeeded")), []) == []
    node = ProcessState("student-0", "12", "running")
    assert not_joined(job(node, role="student"), [member("rank0-ab", "student")]) == []
    assert not_joined(job(ProcessState("coordinator", "1", "running"), role="coordinator"), []) == []


@pytest.mark.parametrize(
    ("process", "line"),
    [
        (ProcessState("t-0", "12", "running", "vm"), "t-0 runs, and is not in the job yet (on vm, 12)"),
        (
            ProcessState("t-0", "7_3", "pending", reason="Resources"),
            "t-0 waits to be started: Resources (7_3)",
        ),
        (
            ProcessState("t-0", "12", "pending", "vm", "exit code 1", 2),
            "t-0 waits to be started: exit code 1 (on vm, 12, started 3 times)",
        ),
        (ProcessState("t-0", "12", "leaving"), "t-0 was told to leave (12)"),
        (ProcessState("toy-t-x7", "toy-t-x7", "leaving"), "toy-t-x7 was told to leave"),
        (ProcessState("t-0", "", "failed", reason="OutOfMemory"), "t-0 has ended: OutOfMemory"),
    ],
)
def test_others_are_told_with_the_engines_own_words(process: ProcessState, line: str) -> None:
    assert not_joined(job(process, wanted=0), []) == [line]


def test_a_preparation_is_no_process_that_would_join_the_job() -> None:
    runs = job(ProcessState("prepare", "12", "running"), role="prepare", phase="pending")
    assert not_joined(runs, []) == ["prepare runs, and all others wait for its end (12)"]


def test_what_outlives_a_job_is_told_with_what_ends_it() -> None:
    worker = ProcessState("t-0", "12", "running")
    assert not_joined(job(worker, phase="succeeded"), []) == ["t-0 still runs, and edldist stop ends it (12)"]
    waits = ProcessState("t-0", "12", "pending")
    said = "t-0 still waits, and edldist stop removes it (12)"
    assert not_joined(job(waits, phase="failed"), []) == [said]


def test_who_is_wanted_and_was_not_started_is_told() -> None:
    first = ProcessState("t-0", "1", "running")
    assert not_joined(job(first, wanted=3), [member("t-0")]) == ["t: 2 of 3 have not been started"]
    assert not_joined(job(first, wanted=3, phase="succeeded"), [member("t-0")]) == []


def test_a_job_without_a_coordinator_is_shown_as_its_engine_sees_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = JobState("toy", "pending", reason="it waits for a node")
    assert show_status_of_folder(tmp_path, False, PlainConsole(), engine=lambda: state) == 0
    assert capsys.readouterr().out == "job toy · pending: it waits for a node\n"
    assert show_status_of_folder(tmp_path, True, PlainConsole(), engine=lambda: state) == 0
    assert json.loads(capsys.readouterr().out)["placed"]["reason"] == "it waits for a node"
